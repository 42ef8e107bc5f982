"""How a worker ends, stage by stage: each begins by itself when the one before had its time, or when asked for again.

The threads that run jobs cannot be interrupted, only what they wait for. So the end is bounded here, whatever is away:
the broker, the database, or both.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import structlog

log = structlog.get_logger()

RECORD_SECONDS: Final = 6.0
"""For what is being recorded, and for telling what was handed back."""
CLOSE_SECONDS: Final = 3.0
"""For the rest; `llmyard up` waits for the sum of both and a second more."""
ONE_WISH_SECONDS: Final = 0.25
"""A group of processes is often told twice: by whoever signals the group, and by the one that passes signals on."""


class Stage(IntEnum):
    """In their order."""

    WORKING = 0
    DRAINING = 1
    """It takes nothing new; jobs go on."""
    HANDING_BACK = 2
    """Jobs that wait for a model go back to the queue; what is being recorded goes on."""
    ABANDONING = 3
    """Nothing is waited for: the leases of what is left run out."""
    ENDING = 4


@dataclass(frozen=True, slots=True)
class StopActions:
    """What each stage does; all are called on the event loop."""

    drain: Callable[[], object]
    hand_back: Callable[[], int]
    """Returns how many jobs."""
    abandon: Callable[[], int]
    """Returns how many jobs."""
    end: Callable[[], object]
    """Ends the process then and there, or makes it anew."""


class OrderlyStop:
    """The way down of one worker process. `ask` and `begin` may be called from signal handlers and other threads."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        actions: StopActions,
        *,
        grace_seconds: float,
        record_seconds: float = RECORD_SECONDS,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._loop = loop
        self._actions = actions
        self._lasts = {
            Stage.DRAINING: grace_seconds,
            Stage.HANDING_BACK: record_seconds,
            Stage.ABANDONING: close_seconds,
        }
        self._stage = Stage.WORKING
        self._asked_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begins_anew = False

    @property
    def is_stopping(self) -> bool:
        return self._stage > Stage.WORKING

    @property
    def begins_anew(self) -> bool:
        """At its end the process becomes a new worker."""
        return self._begins_anew

    def ask(self) -> None:
        """A wish for the end; the second is one for haste, the third for even more."""
        self._loop.call_soon_threadsafe(self._heed)

    def begin(self) -> None:
        """The worker ends for a reason of its own."""
        self._loop.call_soon_threadsafe(self._enter_unless_past, Stage.DRAINING)

    def begin_anew(self) -> None:
        """Hand back everything at once and start over; called on the event loop."""
        if self._stage is Stage.WORKING:
            self._begins_anew = True
            self._actions.drain()
            self._enter(Stage.HANDING_BACK)

    def _heed(self) -> None:
        now = self._loop.time()
        if self._asked_at is not None and now - self._asked_at < ONE_WISH_SECONDS:
            return
        self._asked_at = now
        # Whoever wants the end does not want another beginning.
        self._begins_anew = False
        if self._stage < Stage.ENDING:
            self._enter(Stage(self._stage + 1))

    def _enter_unless_past(self, stage: Stage) -> None:
        if self._stage < stage:
            self._enter(stage)

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        if self._timer is not None:
            self._timer.cancel()
        if stage in self._lasts:
            self._timer = self._loop.call_later(self._lasts[stage], self._enter, Stage(stage + 1))
        self._act(stage)

    def _act(self, stage: Stage) -> None:
        match stage:
            case Stage.DRAINING:
                self._actions.drain()
            case Stage.HANDING_BACK:
                log.info("jobs_handed_back", count=self._actions.hand_back())
            case Stage.ABANDONING:
                if count := self._actions.abandon():
                    log.warning("jobs_abandoned", count=count)
            case Stage.ENDING:
                log.error("end_forced")
                self._actions.end()
