"""The rows' own conditions must see what they are there to see: each fault is made by hand here."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.chaos import row_03_broker, row_07_outage, row_08_storms, row_09_poison, row_13_clocks
from benchmarks.chaos.bench import Bench
from benchmarks.chaos.calls import Call
from benchmarks.chaos.checker import Evidence, check
from benchmarks.chaos.ledger import LedgerJob
from benchmarks.chaos.model_server import build_error
from benchmarks.chaos.row_03_broker import Stop
from benchmarks.chaos.row_08_storms import FORMS, NAMED_SECONDS, Storm, build_refusals
from llm_pool.providers.http import HttpAnswer
from llm_pool.providers.openai_errors import map_error
from llm_pool.providers.quota_headers import OPENAI
from shared.errors import LLMRateLimitedError
from tests.unit.benchmarks.test_chaos_checker import CALL, JOB

BEGAN_AT = 1000.0
STORM = Storm("epoch", BEGAN_AT)
NOTHING_SENT = Evidence([], [], [], [])


def build_calls(*arrivals: float, ending: str = "refused", answered_after: float = 0.1) -> list[Call]:
    return [
        Call(number, "q", arrived_at, ended_at=arrived_at + answered_after, ending=ending)
        for number, arrived_at in enumerate(arrivals, start=1)
    ]


def find_misunderstood(calls: Sequence[Call]) -> list[str]:
    return list(row_08_storms.find_misunderstood(STORM, calls))


def test_every_form_of_a_refusal_has_a_name_of_its_own_that_begins_no_other() -> None:
    assert len(set(FORMS)) == len(FORMS) == len(build_refusals())
    prefixes = [f"{form}-" for form in FORMS]
    assert not any(one != other and one.startswith(other) for one in prefixes for other in prefixes)


@pytest.mark.parametrize("number", range(len(FORMS)), ids=FORMS)
def test_every_form_is_read_as_a_rate_limit_until_the_moment_that_is_named(number: int) -> None:
    refusal = build_refusals()[number]
    headers = {name.lower(): value for name, value in refusal.headers.items()}
    answer = HttpAnswer(429, headers, {"error": dict(refusal.error) or build_error(429)})
    error = map_error(answer, OPENAI, datetime.now(UTC))
    assert isinstance(error, LLMRateLimitedError)
    assert error.retry_after_seconds == pytest.approx(NAMED_SECONDS, abs=5)


def test_a_storm_that_was_heard_of_by_each_worker_is_no_fault() -> None:
    again = build_calls(BEGAN_AT + NAMED_SECONDS + 1, ending="answered")
    assert find_misunderstood([*build_calls(BEGAN_AT + 0.1, BEGAN_AT + 0.3), *again]) == []


def test_a_form_that_no_call_has_met_shows_nothing() -> None:
    before, after = BEGAN_AT - 1, BEGAN_AT + NAMED_SECONDS + 1
    answered = build_calls(BEGAN_AT + 1, ending="answered")
    assert find_misunderstood([*build_calls(before, after), *answered]) == ["epoch: no call met the storm"]


def test_a_form_that_is_not_understood_is_asked_before_its_moment() -> None:
    calls = build_calls(BEGAN_AT, BEGAN_AT + 0.2, BEGAN_AT + 5.4)
    assert find_misunderstood(calls) == ["epoch: asked 1 times before the moment that was named"]
    answered = build_calls(BEGAN_AT + 7.5, BEGAN_AT + 9, ending="answered")
    assert find_misunderstood([*build_calls(BEGAN_AT), *answered]) != []


@pytest.mark.parametrize("again", [(), (BEGAN_AT + 60,)])
def test_a_used_up_quota_whose_reset_is_not_understood_is_left_alone_for_too_long(again: tuple[float, ...]) -> None:
    calls = [*build_calls(BEGAN_AT), *build_calls(*again, ending="answered")]
    assert find_misunderstood(calls) == ["epoch: not asked again within 20 s of the moment that was named"]


def test_each_form_may_waste_less_than_a_hundredth() -> None:
    answered = build_calls(*[BEGAN_AT] * 297, ending="answered")
    few = answered + build_calls(BEGAN_AT, BEGAN_AT)
    many = answered + build_calls(BEGAN_AT, BEGAN_AT, BEGAN_AT)
    assert list(row_08_storms.find_wasteful({"float": few})) == []
    wasteful = list(row_08_storms.find_wasteful({"float": few, "epoch": many}))
    assert wasteful == ["epoch: a hundredth of the calls or more were wasted"]


def test_a_ramp_that_doubles_with_its_answers_is_no_fault() -> None:
    assert list(row_07_outage.find_faults_of_ramp(build_calls(0, 1, 1, 2, 2, 2, 2))) == []


def test_a_ramp_that_outruns_its_answers_is_wrong() -> None:
    assert list(row_07_outage.find_steep({"p": build_calls(0, 0)})) == ["p: call 2 came after 0 answers"]


def test_more_than_the_quota_is_wrong_but_for_calls_that_were_late() -> None:
    early = [number / 10 for number in range(row_07_outage.QUOTA)]
    answered = {"p": build_calls(-0.2, *early, answered_after=0.0)}
    assert [fault for fault in row_07_outage.find_steep(answered) if "calls in less" in fault] != []
    late = {"p": build_calls(*early, 59.0, answered_after=0.0)}
    assert [fault for fault in row_07_outage.find_steep(late) if "calls in less" in fault] == []
    assert list(row_07_outage.find_crowded(late)) == ["p: 101 calls within a minute"]


def test_probes_are_counted_against_the_time_that_the_outage_took() -> None:
    assert list(row_07_outage.find_impatient({"p": 6}, seconds=20)) == []
    assert list(row_07_outage.find_impatient({"p": 7}, seconds=20)) == ["p was probed 7 times"]


def build_job(message_id: str, state: str, crashes: int, crashed_runs: int) -> LedgerJob:
    return replace(JOB, message_id=message_id, state=state, crash_count=crashes, crashed_runs=crashed_runs)


@pytest.mark.parametrize(
    ("job", "fault"),
    [
        (build_job("please crash", "quarantined", 5, 5), None),
        (build_job("calm00001", "succeeded", 1, 1), None),
        (build_job("calm00001", "quarantined", 5, 5), "calm00001 is innocent and was quarantined"),
        (build_job("please eat", "succeeded", 2, 2), "please eat was not quarantined"),
        (build_job("please eat", "quarantined", 3, 3), "please eat was quarantined after 3 crashes, of 3 runs"),
        (build_job("please eat", "quarantined", 5, 8), "please eat was quarantined after 5 crashes, of 8 runs"),
    ],
)
def test_the_poisons_alone_are_quarantined_each_after_five_crashes(job: LedgerJob, fault: str | None) -> None:
    assert list(row_09_poison.find_misjudged([job])) == ([fault] if fault else [])


def test_without_a_compiler_no_clock_is_shifted_and_the_row_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    finding = row_13_clocks.run(Bench(tmp_path))
    assert (finding.is_not_run, finding.faults) == (True, ())


def test_a_flush_that_costs_a_call_is_wrong() -> None:
    verdict = check(Evidence([], [CALL, CALL], [], []))
    assert list(row_03_broker.find_wrong(verdict, [])) == ["1 extra calls"]


def test_a_worker_that_is_late_was_missed_and_one_that_never_came_is_wrong() -> None:
    verdict = check(NOTHING_SENT)
    late = Stop(30, {"one": 2.0, "two": 31.0}, workers=2)
    never = Stop(30, {"one": 2.0}, workers=2)
    assert (list(row_03_broker.find_wrong(verdict, [late])), len(list(row_03_broker.find_late([late])))) == ([], 1)
    assert (len(list(row_03_broker.find_wrong(verdict, [never]))), list(row_03_broker.find_late([never]))) == (1, [])
