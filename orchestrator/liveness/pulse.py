"""What a worker process sees of its own work. Several threads tell it; each tells one float, so no lock is needed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Final

TURN_SECONDS: Final = 1.0
"""How often the event loop leaves its mark."""
STANDS_SECONDS: Final = 2 * TURN_SECONDS
"""A loop that left none for longer stands still: what is taken now would only wait in it."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What was seen of a worker up to a moment."""

    at: float
    """On the monotonic clock, as are all moments here."""
    quiet_seconds: float
    """Since it got a job, asked for one and was answered, or had no room for one."""
    unseen_seconds: float
    """Since the database took its heartbeat."""
    sees_polls: bool
    """The broker is asked again and again, and each answer is told: no answer is a sign then."""


class Pulse:
    """When a worker process last worked, as it sees it itself."""

    def __init__(
        self, queues: Collection[str], is_full: Callable[[], bool], clock: Callable[[], float] = monotonic
    ) -> None:
        """`queues` are those it was started for: to ask for others only is not to work."""
        self._queues = frozenset(queues)
        self._is_full = is_full
        self._clock = clock
        self._active_at = self._beaten_at = self._turned_at = clock()
        self._sees_polls = False

    def note_poll(self, queues: Collection[str]) -> None:
        """The broker has answered whether there is a message on one of these."""
        if self._queues.issubset(queues):
            self._sees_polls = True
            self.note_activity()

    def note_activity(self) -> None:
        """It got a job, or it is certain that there was none to get."""
        self._active_at = self._clock()

    def note_beat(self) -> None:
        self._beaten_at = self._clock()

    def note_turn(self) -> None:
        """The event loop goes round: told by it, every `TURN_SECONDS`."""
        self._turned_at = self._clock()

    def has_turned_within(self, seconds: float) -> bool:
        """Whether the event loop went round in the last so many seconds."""
        return self._clock() - self._turned_at < seconds

    def read(self) -> Signs:
        now = self._clock()
        # Who stands still asks for nothing either; that is no work.
        if self.has_turned_within(STANDS_SECONDS) and self._is_full():
            self._active_at = now
        return Signs(now, max(0.0, now - self._active_at), now - self._beaten_at, self._sees_polls)
