"""A probe first, then a drain that doubles with every answer."""

import pytest

from orchestrator.failed_requests.policy import (
    MAX_REPLAYING,
    PROBE_INTERVAL_SECONDS,
    DrainPulse,
    decide_delay_seconds,
    decide_release,
)


def pulse(
    replaying: int = 0, answered: int = 0, since_answer: float | None = None, since_parking: float | None = None
) -> DrainPulse:
    return DrainPulse(replaying, answered, since_answer, since_parking)


def test_one_probe_when_nobody_has_answered_yet() -> None:
    assert decide_release(pulse(since_parking=PROBE_INTERVAL_SECONDS)) == 1


def test_no_second_probe_while_the_first_is_under_way() -> None:
    assert decide_release(pulse(replaying=1, since_parking=60.0)) == 0


def test_no_probe_right_after_the_last_one_failed() -> None:
    assert decide_release(pulse(since_parking=PROBE_INTERVAL_SECONDS - 0.1)) == 0


def test_a_probe_when_what_is_due_is_all_that_is_known() -> None:
    assert decide_release(pulse()) == 1


@pytest.mark.parametrize(("answered", "released"), [(1, 2), (3, 6), (7, 14), (50, MAX_REPLAYING), (900, MAX_REPLAYING)])
def test_the_drain_doubles_with_every_answer_up_to_its_bound(answered: int, released: int) -> None:
    assert decide_release(pulse(answered=answered, since_answer=0.5, since_parking=20.0)) == released


def test_what_is_under_way_counts_towards_the_pace() -> None:
    assert decide_release(pulse(replaying=2, answered=3, since_answer=0.5)) == 4
    assert decide_release(pulse(replaying=200, answered=3, since_answer=0.5)) == 0


def test_parked_again_goes_back_to_one_probe() -> None:
    down_again = pulse(answered=40, since_answer=6.0, since_parking=PROBE_INTERVAL_SECONDS)
    assert decide_release(down_again) == 1


def test_the_ramp_reaches_the_bound_from_a_single_probe() -> None:
    answered, waves = 0, []
    while not waves or waves[-1] < MAX_REPLAYING:
        waves.append(decide_release(pulse(answered=answered, since_answer=0.1 if answered else None)))
        answered += waves[-1]
    assert waves == [1, 2, 6, 18, 54, 100]


@pytest.mark.parametrize(
    ("retry_after", "delay"), [(None, PROBE_INTERVAL_SECONDS), (0.5, PROBE_INTERVAL_SECONDS), (86_400.0, 86_400.0)]
)
def test_what_the_provider_asks_for_wins_when_it_is_longer(retry_after: float | None, delay: float) -> None:
    assert decide_delay_seconds(retry_after) == delay
