"""When what is parked is tried again, and how many at once; pure decisions, for each model group by itself.

After an outage one replay goes first, as a probe. Each answer then lets one more be under way, which doubles their
number every round; one that is turned away halves it, and when nothing else was answered it is back to one probe.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from shared.errors import LLMBudgetExceededError

PROBE_INTERVAL_SECONDS: Final = 5.0
"""Least time between two probes of a provider that is still down."""
PACE_LASTS_SECONDS: Final = 30.0
"""Without an answer for so long the pace says nothing any more: a probe goes first again."""
OF_OUR_OWN_MAKING: Final = (LLMBudgetExceededError.__name__,)
"""Errors that say nothing of any provider: a tenant without money must not hold up the jobs of all others."""
SLOTS_OF_UNKNOWN_FLEET: Final = 100
"""What is taken for the fleet's size while no worker has told of itself."""
MOST_AT_ONCE: Final = 500
"""Of one release; the next one is a moment later."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many replays of a group may be under way, and what that rests on."""

    allowed: int = 1
    """1 is a probe."""
    seconds_since_answer: float | None = None
    """Since a pass last saw one; None if never. So below."""
    seconds_since_turned_away: float | None = None


@dataclass(frozen=True, slots=True)
class DrainedGroup:
    """How the replays of one model group go, over all workers."""

    model: str
    replaying: int
    """Sent back and not yet ended."""
    answered: int
    """Since the pass before; so below."""
    turned_away: int
    """Parked again for want of a provider. Work that was parked for the first time does not count: under a steady
    overload there always is some, and what waits would never have its turn.
    """
    pace: Pace
    """As the pass before left it."""


def decide_most(slots: int | None) -> int:
    """How many replays may be under way at once in the whole fleet: half of its slots stay with fresh work."""
    return max(1, (slots or SLOTS_OF_UNKNOWN_FLEET) // 2)


def decide_pace(group: DrainedGroup, most: int) -> Pace:
    """How many of the group may be under way from now on."""
    pace = group.pace
    if group.answered:
        pace = replace(pace, seconds_since_answer=0.0)
    if group.turned_away:
        pace = replace(pace, seconds_since_turned_away=0.0)
    return replace(pace, allowed=min(_decide_allowed(group), most))


def _decide_allowed(group: DrainedGroup) -> int:
    allowed = group.pace.allowed
    if group.turned_away > group.answered:
        return 1
    if group.turned_away:
        return max(1, allowed // 2)
    if group.answered:
        return allowed + group.answered
    return allowed if _is_recent(group.pace.seconds_since_answer, PACE_LASTS_SECONDS) else 1


def choose_order(groups: Iterable[DrainedGroup]) -> list[DrainedGroup]:
    """Which group may take of the room first: the one with the least under way, and of these a probe.

    So one that is slow or down leaves the probes of the others alone.
    """
    return sorted(groups, key=lambda group: (group.replaying, group.pace.allowed))


def decide_release(group: DrainedGroup, *, most: int, room: int) -> int:
    """How many of the group to send back now, where there is room for so many."""
    pace = decide_pace(group, most)
    if pace.allowed == 1 and _is_recent(pace.seconds_since_turned_away, PROBE_INTERVAL_SECONDS):
        return 0
    return max(0, min(pace.allowed - group.replaying, room, MOST_AT_ONCE))


def _is_recent(seconds: float | None, bound_seconds: float) -> bool:
    return seconds is not None and seconds < bound_seconds
