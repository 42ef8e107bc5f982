"""A probe first, then a drain that doubles every round; each group by itself, half of the slots for fresh work."""

from dataclasses import replace

import pytest

from orchestrator.failed_requests.policy import (
    MOST_AT_ONCE,
    PACE_LASTS_SECONDS,
    PROBE_INTERVAL_SECONDS,
    SLOTS_OF_UNKNOWN_FLEET,
    DrainedGroup,
    Pace,
    choose_order,
    decide_most,
    decide_pace,
    decide_release,
)


def group(
    replaying: int = 0,
    answered: int = 0,
    turned_away: int = 0,
    *,
    model: str = "fast",
    allowed: int = 1,
    since_answer: float | None = None,
    since_turned_away: float | None = None,
) -> DrainedGroup:
    return DrainedGroup(model, replaying, answered, turned_away, Pace(allowed, since_answer, since_turned_away))


def release(group: DrainedGroup, slots: int | None = 1000) -> int:
    most = decide_most(slots)
    return decide_release(group, most=most, room=most - group.replaying)


def decide_allowed(group: DrainedGroup, most: int = 500) -> int:
    return decide_pace(group, most).allowed


def test_one_probe_when_nothing_is_known() -> None:
    assert release(group()) == 1


def test_no_second_probe_while_the_first_is_under_way() -> None:
    assert release(group(replaying=1)) == 0


def test_no_probe_right_after_one_was_turned_away() -> None:
    assert release(group(turned_away=1)) == 0
    assert release(group(since_turned_away=PROBE_INTERVAL_SECONDS - 0.1)) == 0
    assert release(group(since_turned_away=PROBE_INTERVAL_SECONDS)) == 1


def test_each_answer_lets_one_more_be_under_way() -> None:
    assert decide_allowed(group(answered=1)) == 2
    assert decide_allowed(group(answered=5, allowed=8)) == 13
    assert release(group(replaying=3, answered=5, allowed=8)) == 10


def test_the_number_doubles_every_round_up_to_half_of_the_slots() -> None:
    seen, before, waves = Pace(), 0, []
    while len(waves) < 8:
        round_ = DrainedGroup("fast", 0, before, 0, seen)
        waves.append(release(round_, slots=64))
        seen, before = decide_pace(round_, 32), waves[-1]
    assert waves == [1, 2, 4, 8, 16, 32, 32, 32]


def test_being_turned_away_halves_it_and_without_answers_it_is_back_to_one_probe() -> None:
    assert decide_allowed(group(answered=6, turned_away=2, allowed=40)) == 20
    assert decide_allowed(group(turned_away=2, answered=1, allowed=40)) == 1
    assert decide_allowed(group(answered=1, turned_away=1, allowed=1)) == 1


def test_the_pace_never_passes_what_the_fleet_can_hold() -> None:
    assert decide_allowed(group(answered=10_000, allowed=90), most=100) == 100
    assert decide_allowed(group(answered=5, turned_away=5, allowed=900), most=100) == 100


def test_a_pace_of_yesterday_says_nothing() -> None:
    assert decide_allowed(group(allowed=100, since_answer=PACE_LASTS_SECONDS - 1)) == 100
    assert decide_allowed(group(allowed=100, since_answer=PACE_LASTS_SECONDS)) == 1


def test_half_of_the_slots_stay_with_fresh_work_whatever_the_pace() -> None:
    fast = group(allowed=400, since_answer=0.5)
    assert release(fast, slots=64) == 32
    assert release(replace(fast, replaying=30), slots=64) == 2
    assert release(replace(fast, replaying=40), slots=64) == 0
    assert release(fast, slots=None) == SLOTS_OF_UNKNOWN_FLEET // 2
    assert release(group(), slots=1) == 1


def test_no_release_is_larger_than_one_statement_should_be() -> None:
    assert release(group(answered=10_000, allowed=400), slots=100_000) == MOST_AT_ONCE


def test_who_has_the_least_under_way_is_asked_first_and_a_probe_before_a_drain() -> None:
    slow = group(30, model="slow", allowed=100, since_answer=1.0)
    fast, down = group(model="fast", allowed=50), group(model="down", since_turned_away=1.0)
    assert [each.model for each in choose_order([slow, fast, down])] == ["down", "fast", "slow"]


def test_no_more_go_than_there_is_room_for() -> None:
    fast = group(allowed=8, since_answer=1.0)
    assert [decide_release(fast, most=32, room=room) for room in (100, 3, 0, -400)] == [8, 3, 0, 0]


@pytest.mark.parametrize("turned_away", [0, 1])
def test_news_is_dated(turned_away: int) -> None:
    pace = decide_pace(group(answered=1, turned_away=turned_away, since_answer=9.0, since_turned_away=9.0), 500)
    assert (pace.seconds_since_answer, pace.seconds_since_turned_away) == (0.0, 0.0 if turned_away else 9.0)
