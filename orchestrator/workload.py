"""How much a worker process has to do, and how much more of each kind it has room for.

N jobs wait for a model at once. To keep it at N, a worker also has in hand what was answered and is being recorded, and
as many claimed ahead as will be answered while a claim takes. Slices take what single jobs leave over: a single job
goes before all that wait for a slot.

Counted on the event loop, read by the thread that takes messages: each count is one number, so no lock is needed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import exp
from time import monotonic
from typing import Final

from shared.errors import LLMYardError

AHEAD_SECONDS: Final = 0.5
"""What is answered in this time is claimed ahead: calls that began together end together, and all want a successor."""
SLICES_AHEAD_SECONDS: Final = 0.05
"""Of a quick model: to ask the broker for a slice costs as much as some jobs, so several are taken by one look."""
REMEMBERED_SECONDS: Final = 4.0
"""How far back answers count for how often they come."""
PATIENCE_SECONDS: Final = 3.0
"""What was claimed ahead, and has found no slot by then, is another worker's: this one's answers have become slow."""


class NoSlotError(LLMYardError):
    """All slots are held by single jobs, and none became free."""


class Place:
    """One job's share of the workload, from the moment it was taken until its outcome was told."""

    def __init__(self, workload: "Workload", *, is_urgent: bool) -> None:
        self._workload = workload
        self._is_urgent = is_urgent
        self.has_made_room = False

    def slot(self) -> "Slot":
        """Hold one of the slots; a single job gets the next one before any job of a slice.

        Raises:
            NoSlotError: a single job waited for others of its kind, for longer than it should have been claimed.
        """
        return Slot(self._workload.slots, is_urgent=self._is_urgent)

    def make_room(self, *, is_answered: bool = True) -> None:
        """It has what it waited for, or gave up: what is left to be done takes nobody's room."""
        self.has_made_room = True
        self._workload.note_room(is_single=self._is_urgent, is_answered=is_answered)


class Slot:
    """One of the slots, held while the block runs."""

    def __init__(self, slots: "Slots", *, is_urgent: bool) -> None:
        self._slots = slots
        self._is_urgent = is_urgent

    async def __aenter__(self) -> None:
        await self._slots.acquire(is_urgent=self._is_urgent)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(is_urgent=self._is_urgent)


class Workload:
    """Of one worker process."""

    def __init__(self, slots: int, clock: Callable[[], float] = monotonic) -> None:
        """`slots` is the most jobs that wait for a model at once."""
        self.slots = Slots(slots)
        self._size = slots
        self._clock = clock
        self._answered_singles = 0
        self._slices = 0
        self._unanswered_in_slices = 0
        self._pace = Pace()
        self._has_answered = asyncio.Event()

    def find_room(self, singles_in_hand: int) -> int:
        """For how many more single jobs, of which the consumer has so many in hand."""
        return self._size + self._ahead - max(0, singles_in_hand - self._answered_singles)

    def find_room_in_slices(self, singles_in_hand: int, slices_in_hand: int) -> int:
        """For how many jobs of further slices: that no slot stays empty until the broker is asked again."""
        if slices_in_hand > self._slices:  # nobody knows yet how many jobs are in one that has not begun
            return 0
        more_ahead = max(0, round(self._pace.read(self._clock()) * SLICES_AHEAD_SECONDS) - self._ahead)
        return self.find_room(singles_in_hand) + more_ahead - self._unanswered_in_slices

    async def slice_turn(self) -> None:
        """Wait until slots would stay empty: RabbitMQ hands out slices without being asked."""
        while self._unanswered_in_slices >= self._size:
            self._has_answered.clear()
            await self._has_answered.wait()

    @contextmanager
    def enter_single(self) -> Iterator[Place]:
        """For a job that came by a message of its own."""
        place = Place(self, is_urgent=True)
        try:
            yield place
        finally:
            self._answered_singles -= place.has_made_room

    @contextmanager
    def enter_slice(self, jobs: int) -> Iterator[list[Place]]:
        """For each of so many jobs that came together."""
        places = [Place(self, is_urgent=False) for _ in range(jobs)]
        self._slices += 1
        self._unanswered_in_slices += jobs
        try:
            yield places
        finally:
            self._slices -= 1
            self._unanswered_in_slices -= sum(not place.has_made_room for place in places)
            self._has_answered.set()

    def note_room(self, *, is_single: bool, is_answered: bool) -> None:
        """A place has made room. What gave up says nothing of how fast answers come."""
        if is_answered:
            self._pace.note(self._clock())
        self._has_answered.set()
        if is_single:
            self._answered_singles += 1
        else:
            self._unanswered_in_slices -= 1

    @property
    def _ahead(self) -> int:
        return min(self._size, round(self._pace.read(self._clock()) * AHEAD_SECONDS))


class Pace:
    """How often something happens, the more recent counting the more. Moments are of a monotonic clock."""

    def __init__(self) -> None:
        self._a_second = 0.0
        self._at = 0.0

    def note(self, now: float) -> None:
        """It happens."""
        self._a_second = self.read(now) + 1 / REMEMBERED_SECONDS
        self._at = now

    def read(self, now: float) -> float:
        """Times a second."""
        return self._a_second * exp((self._at - now) / REMEMBERED_SECONDS)


class Slots:
    """A semaphore with two lines: whoever is urgent goes first, each line in its order."""

    def __init__(self, count: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._free = self._count = count
        self._held_by_urgent = 0
        self._patience_seconds = patience_seconds
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    async def acquire(self, *, is_urgent: bool) -> None:
        """
        Raises:
            NoSlotError: urgent ones hold all of them, and none was released for long.
        """
        if self._free:
            self._free -= 1
            self._held_by_urgent += is_urgent
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if is_urgent else self._others).append(turn)
        timer = self._lose_patience_later(turn) if is_urgent else None
        try:
            await turn
        except asyncio.CancelledError:
            # The turn may have come at the same moment: it is the next one's then.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(is_urgent=is_urgent)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def release(self, *, is_urgent: bool) -> None:
        """Hand the slot to whoever is next."""
        self._held_by_urgent -= is_urgent
        for line, is_urgent_line in ((self._urgent, True), (self._others, False)):
            while line:
                turn = line.popleft()
                if not turn.done():
                    self._held_by_urgent += is_urgent_line
                    turn.set_result(None)
                    return
        self._free += 1

    def _lose_patience_later(self, turn: asyncio.Future[None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._patience_seconds, self._lose_patience, turn)

    def _lose_patience(self, turn: asyncio.Future[None]) -> None:
        """Where jobs of a slice hold slots, the next one that is released is its own."""
        if not turn.done() and self._held_by_urgent == self._count:
            turn.set_exception(NoSlotError("no slot became free"))
