"""What is left of the quotas: as the provider told last, or counted where it tells nothing; a warning once a window."""

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from llm_pool.catalog import Limits, ModelGroup
from llm_pool.middleware.quota import Quota
from llm_pool.pool_status import QuotaInfo
from llm_pool.status.metrics import Metrics
from llm_pool.status.quota import QuotaTracker
from llm_pool.status.status_board import StatusBoard
from shared.attempts import QuotaReading, Usage
from shared.errors import LLMRateLimitedError, LLMUnavailableError
from tests.fakes.moving_clock import MovingClock
from tests.fakes.ring import Ring
from tests.fakes.scripted_provider import Script, ask, build_catalog, deploy

A = deploy("a")


def tell(remaining: int | None, *, limit: int | None = 100, resets_in: float | None = 30.0) -> QuotaReading:
    return QuotaReading("requests", "minute", limit, remaining, resets_in)


def tell_of_a_day(remaining: int, resets_in: float) -> QuotaReading:
    return QuotaReading("tokens", "day", 1000, remaining, resets_in)


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


def only(tracker: QuotaTracker) -> QuotaInfo:
    ((info,),) = [quota.quotas for quota in tracker.get_status()]
    return info


def test_the_latest_word_of_the_provider_holds(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.update(A, [tell(90)])
    clock.seconds += 1
    tracker.update(A, [tell(60)])
    heard_at = clock.now()
    clock.seconds += 1
    assert only(tracker) == QuotaInfo(
        kind="requests",
        period="minute",
        limit=100,
        remaining=60,
        used=40,
        resets_at=heard_at + timedelta(seconds=30),
        heard_at=heard_at,
        is_warning=False,
    )


def test_every_kind_and_period_stands_by_itself(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.update(A, [tell(60), tell_of_a_day(10, 60.0)])
    tracker.update(A, [tell(50)])
    tracker.update(deploy("b"), [tell(40)])
    found = [(quota.deployment, [info.remaining for info in quota.quotas]) for quota in tracker.get_status()]
    assert found == [("a", [50, 10]), ("b", [40])]


def test_a_quota_whose_reset_has_come_is_full_again(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.update(A, [tell(0, resets_in=30.0)])
    assert (only(tracker).remaining, only(tracker).is_warning) == (0, True)
    clock.seconds += 30
    info = only(tracker)
    assert (info.remaining, info.used, info.resets_at, info.is_warning) == (100, 0, None, False)


def refuse(period: str = "minute") -> QuotaReading:
    """As Gemini does, which names no reset of its minutes."""
    return QuotaReading("requests", period, 100, 0, None)


@pytest.mark.parametrize(("period", "seconds"), [("minute", 60), ("day", 86_400)])
def test_a_quota_that_names_no_reset_is_believed_for_its_period(clock: MovingClock, period: str, seconds: int) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.increment_local_count(A, None)
    tracker.update(A, [refuse(period)])
    clock.seconds += seconds - 1
    assert (only(tracker).remaining, only(tracker).is_warning) == (0, True)
    clock.seconds += 1
    assert [info.is_counted for info in tracker.get_status()[0].quotas] == [True, True]


def test_an_answer_that_tells_nothing_ends_what_names_no_reset_and_what_is_past_it(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.update(A, [refuse()])
    tracker.increment_local_count(A, Usage(3, 2))
    assert [(info.used, info.is_counted) for info in tracker.get_status()[0].quotas] == [(1, True), (5, True)]
    tracker.update(A, [tell(0, resets_in=30.0)])
    tracker.increment_local_count(A, None)
    assert (only(tracker).remaining, only(tracker).is_counted) == (0, False)
    clock.seconds += 30
    tracker.increment_local_count(A, None)
    assert [info.used for info in tracker.get_status()[0].quotas] == [3, 5]


def test_a_limit_that_is_not_told_again_is_remembered(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.update(A, [tell(90)])
    tracker.update(A, [tell(30, limit=None)])
    assert (only(tracker).limit, only(tracker).used) == (100, 70)


def test_what_is_not_known_is_not_made_up(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.update(A, [tell(None, limit=None, resets_in=None)])
    info = only(tracker)
    assert (info.limit, info.remaining, info.used, info.resets_at, info.is_warning) == (None, None, None, None, False)


def test_a_warning_is_given_once_a_window(clock: MovingClock) -> None:
    metrics = Metrics()
    tracker = QuotaTracker(0.8, clock=clock, meter=metrics)
    with capture_logs() as logs:
        for remaining, seconds in ((21, 0), (20, 0), (5, 10), (3, 30), (2, 30)):
            clock.seconds += seconds
            tracker.update(A, [tell(remaining, resets_in=60.0)])
    assert [(log["event"], log["used"]) for log in logs] == [
        ("quota_threshold_passed", 80),
        ("quota_threshold_passed", 98),
    ]
    assert logs[0] | {"resets_at": ""} == {
        "event": "quota_threshold_passed",
        "log_level": "warning",
        "deployment": "a",
        "kind": "requests_per_minute",
        "used": 80,
        "limit": 100,
        "resets_at": "",
    }
    labels = {"deployment": "a", "kind": "requests_per_minute"}
    assert metrics.registry.get_sample_value("llm_quota_warnings_total", labels) == 2


def test_a_quota_that_refills_all_the_time_does_not_warn_all_the_time(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    with capture_logs() as logs:
        for _ in range(100):
            clock.seconds += 1
            tracker.update(A, [tell(10, resets_in=0.006), tell_of_a_day(10, 3.0)])
    assert [log["kind"] for log in logs] == ["requests_per_minute", "tokens_per_day", "requests_per_minute"]


def test_where_a_provider_tells_nothing_answers_are_counted_by_the_day(clock: MovingClock) -> None:
    deployment = deploy("a", limits=Limits(requests_per_day=10))
    tracker = QuotaTracker(clock=clock)
    for usage in (Usage(3, 2), None, Usage(10, 5)):
        tracker.increment_local_count(deployment, usage)
    ((requests, tokens),) = [quota.quotas for quota in tracker.get_status()]
    assert (requests.kind, requests.used, requests.limit, requests.remaining) == ("requests", 3, 10, 7)
    assert (tokens.kind, tokens.used, tokens.limit, tokens.remaining) == ("tokens", 20, None, None)
    assert requests.resets_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert requests.is_counted


def test_a_count_begins_anew_with_the_day(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    tracker.increment_local_count(A, Usage(3, 2))
    clock.seconds += 86_400
    assert [info.used for info in tracker.get_status()[0].quotas] == [0, 0]
    tracker.increment_local_count(A, Usage(1, 1))
    assert [info.used for info in tracker.get_status()[0].quotas] == [1, 2]


def test_a_count_warns_too_once_a_day(clock: MovingClock) -> None:
    deployment = deploy("a", limits=Limits(requests_per_day=10))
    tracker = QuotaTracker(clock=clock)
    with capture_logs() as logs:
        for _ in range(10):
            tracker.increment_local_count(deployment, None)
        clock.seconds += 7_200
        tracker.increment_local_count(deployment, None)
        clock.seconds += 86_400
        for _ in range(8):
            tracker.increment_local_count(deployment, None)
    assert [(log["kind"], log["used"]) for log in logs] == [("requests_per_day", 8), ("requests_per_day", 8)]


async def test_answers_and_refusals_tell_of_quotas_and_the_rest_is_counted(clock: MovingClock) -> None:
    refusal = LLMRateLimitedError("slow down")
    refusal.quota = (tell(0),)
    tracker = QuotaTracker(clock=clock)
    board = StatusBoard(tracker, clock=clock)
    catalog = build_catalog(ModelGroup("fast", (deploy("a"), deploy("b")), strategy="priority", retries=0))
    scripts = {"a": Script([refusal]), "b": Script()}
    ring = Ring(catalog, scripts, clock, around_tries=(Quota(tracker, board),))
    await ring.answer(ask())
    told, counted = tracker.get_status()
    assert [(info.remaining, info.is_counted) for info in told.quotas] == [(0, False)]
    assert [(info.used, info.is_counted) for info in counted.quotas] == [(1, True), (5, True)]
    status = board.get_status()
    assert [(each.model_group, each.deployment) for each in status.answering] == [("fast", "b")]
    assert status.current_provider == "scripted"


async def test_whoever_failed_does_not_count_as_answering(clock: MovingClock) -> None:
    tracker = QuotaTracker(clock=clock)
    board = StatusBoard(tracker, clock=clock)
    catalog = build_catalog(ModelGroup("fast", (deploy("a"),), retries=0))
    ring = Ring(catalog, {"a": Script([LLMRateLimitedError("no")])}, clock, around_tries=(Quota(tracker, board),))
    with pytest.raises(LLMUnavailableError):
        await ring.answer(ask())
    assert (board.get_status().answering, board.get_status().current_provider) == ((), None)
