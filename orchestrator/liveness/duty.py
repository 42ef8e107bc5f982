"""What goes on beside the jobs of a worker process: it shows that its loop turns, it beats, it listens whether it still
hears, and it holds off its end.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from orchestrator.liveness import dead_man, registry
from orchestrator.liveness.deafness import Ear, Look
from orchestrator.liveness.pulse import TURN_SECONDS, Pulse
from orchestrator.liveness.registry import Standing, WorkerIdentity
from orchestrator.liveness.stopping import OrderlyStop
from shared.database import DATABASE_ERRORS, Database, describe_fault

log = structlog.get_logger()

BEATS_PER_LIMIT: Final = 3
"""Two may be lost before a worker is lost."""
LOOKS_PER_SILENCE: Final = 4


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a worker is seen, and how long it may be silent."""

    lease_seconds: float
    silent_seconds: float

    @property
    def beat_seconds(self) -> float:
        """Often enough for either."""
        return min(self.lease_seconds, self.silent_seconds) / BEATS_PER_LIMIT

    @property
    def look_seconds(self) -> float:
        return self.silent_seconds / LOOKS_PER_SILENCE


class Duty:
    """What a worker process owes the others beside its jobs: to be seen, and to hear. Lives on the event loop."""

    def __init__(
        self,
        database: Database,
        identity: WorkerIdentity,
        pulse: Pulse,
        stop: OrderlyStop,
        cadence: Cadence,
        read_backlog: Callable[[], int | None],
    ) -> None:
        """`read_backlog` asks the broker over a connection of its own; None: it does not answer."""
        self.pulse = pulse
        self.stop = stop
        self._database = database
        self._identity = identity
        self._cadence = cadence
        self._read_backlog = read_backlog
        self._is_beat_wanted = asyncio.Event()
        limit_seconds = dead_man.decide_limit_seconds(cadence.lease_seconds)
        duties = (self._turn(), self._beat(), self._listen(), dead_man.hold_off(limit_seconds))
        self._tasks = [asyncio.create_task(each) for each in duties]

    def beat_now(self) -> None:
        """Something changed that others should see."""
        self._is_beat_wanted.set()

    def read_checks(self) -> dict[str, bool]:
        """May be called from any thread."""
        signs, limit = self.pulse.read(), self._cadence.silent_seconds
        return {
            "taking": not self.stop.is_stopping and signs.quiet_seconds < limit,
            "heartbeat": signs.unseen_seconds < limit,
        }

    async def aclose(self) -> None:
        """Take leave, if the database is there to hear it."""
        for task in self._tasks:
            task.cancel()
        try:
            async with self._database.as_system() as connection:
                await registry.leave(connection, self._identity.name)
        except DATABASE_ERRORS as error:
            log.warning("worker_left_unseen", error=describe_fault(error))

    async def _turn(self) -> None:
        while True:
            self.pulse.note_turn()
            await asyncio.sleep(TURN_SECONDS)

    async def _beat(self) -> None:
        announce = registry.enter
        while True:
            try:
                # A database gone silent must not end the beats.
                async with asyncio.timeout(self._cadence.silent_seconds), self._database.as_system() as connection:
                    await announce(connection, self._identity, self._read_standing())
            except DATABASE_ERRORS as error:
                log.warning("worker_unseen", error=describe_fault(error))
            else:
                self.pulse.note_beat()
                announce = registry.beat
            await self._rest()

    def _read_standing(self) -> Standing:
        return Standing(self.pulse.read().quiet_seconds, self.stop.is_stopping)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._cadence.beat_seconds):
                await self._is_beat_wanted.wait()
        except TimeoutError:
            return
        self._is_beat_wanted.clear()

    async def _listen(self) -> None:
        ear = Ear(started_at=self.pulse.read().at)
        while not self.stop.is_stopping:
            await asyncio.sleep(self._cadence.look_seconds)
            look = await self._look()
            ear = ear.after(look)
            if ear.is_deaf(look.at, self._cadence.silent_seconds) and not self.stop.is_stopping:
                log.error("worker_deaf", quiet_seconds=round(self.pulse.read().quiet_seconds))
                self.stop.begin_anew()

    async def _look(self) -> Look:
        """Where polls are not seen, an empty queue proves that there was nothing to get."""
        signs = self.pulse.read()
        if signs.quiet_seconds < self._cadence.look_seconds:
            return Look(signs.at, has_heard=True, broker_answers=True)
        backlog = await asyncio.to_thread(self._read_backlog)
        if backlog == 0 and not signs.sees_polls:
            self.pulse.note_activity()
            return Look(signs.at, has_heard=True, broker_answers=True)
        return Look(signs.at, has_heard=False, broker_answers=backlog is not None)
