"""When a parked job is tried again, and how many at once; pure decisions.

After an outage one job goes first as a probe. Once it is answered the drain doubles with every answer of the last half
minute, so that a provider that just came back is not knocked over by everything that waited for it.
"""

from dataclasses import dataclass
from typing import Final

PROBE_INTERVAL_SECONDS: Final = 5.0
"""Least time between two probes of a provider that is still down."""
RECENT_SECONDS: Final = 30.0
"""Answers younger than this count towards the pace of the drain."""
MAX_REPLAYING: Final = 100
"""Most replays under way at once."""


@dataclass(frozen=True, slots=True)
class DrainPulse:
    """How the drain goes, over all workers."""

    replaying: int
    """Replays sent back and not yet ended."""
    answered_lately: int
    """Replays answered in the last `RECENT_SECONDS`."""
    seconds_since_answer: float | None
    """Since the latest replay was answered; None if never."""
    seconds_since_parking: float | None
    """Since the latest job was parked; None if never."""


def decide_delay_seconds(retry_after_seconds: float | None) -> float:
    """How long a job is left parked before it may be tried: what the provider asked for, or until the next probe."""
    return max(retry_after_seconds or 0.0, PROBE_INTERVAL_SECONDS)


def decide_release(pulse: DrainPulse) -> int:
    """How many parked jobs to send back now."""
    if _is_recovering(pulse):
        return max(0, min(2 * pulse.answered_lately, MAX_REPLAYING) - pulse.replaying)
    is_probe_due = pulse.seconds_since_parking is None or pulse.seconds_since_parking >= PROBE_INTERVAL_SECONDS
    return 1 if is_probe_due and not pulse.replaying else 0


def _is_recovering(pulse: DrainPulse) -> bool:
    """The latest news is an answer, not another parking."""
    if not pulse.answered_lately or pulse.seconds_since_answer is None:
        return False
    return pulse.seconds_since_parking is None or pulse.seconds_since_answer < pulse.seconds_since_parking
