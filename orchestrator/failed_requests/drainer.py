"""Keeps the drain of one worker process going: pass after pass while something is parked, and none when nothing is.

Beat asks for it with each sweep, and what it asked for lasts a little longer than until the next one. So nobody is
woken every second for nothing, and what parks meanwhile is seen in time: it is not due before another sweep has come.
"""

import asyncio
from typing import Final, Protocol

import structlog

from orchestrator.beat import SWEEP_SECONDS
from orchestrator.failed_requests import drains
from orchestrator.failed_requests.replay import drain
from shared.database import DATABASE_ERRORS, Database, describe_fault

log = structlog.get_logger()

PASS_SECONDS: Final = 1.0
"""From the beginning of one pass to that of the next."""
LASTS_SECONDS: Final = 1.5 * SWEEP_SECONDS
"""For so long after a sweep the passes go on: a sweep that comes late leaves no gap."""


class CallReplays(Protocol):
    """What of the calls' replayer is needed here."""

    async def start_due(self) -> int: ...


class Drainer:
    """Of one worker process; those of others may be at it too. Lives on the event loop."""

    def __init__(
        self,
        database: Database,
        calls: CallReplays,
        *,
        expires_seconds: float,
        pass_seconds: float = PASS_SECONDS,
        lasts_seconds: float = LASTS_SECONDS,
    ) -> None:
        """What is parked for longer than `expires_seconds` is ended."""
        self._database = database
        self._calls = calls
        self._expires_seconds = expires_seconds
        self._pass_seconds = pass_seconds
        self._lasts_seconds = lasts_seconds
        self._until = 0.0
        self._is_closing = asyncio.Event()
        self._passes: asyncio.Task[None] | None = None

    def go_on(self) -> None:
        """Drain from now on, until so long after the last time this was called; called on the event loop."""
        self._until = _now() + self._lasts_seconds
        if not self.is_draining and not self._is_closing.is_set():
            self._passes = asyncio.create_task(self._make_passes())

    @property
    def is_draining(self) -> bool:
        """False as soon as nothing is parked."""
        return self._passes is not None and not self._passes.done()

    async def wait(self) -> None:
        """Until the passes that were asked for are over."""
        if self._passes is not None:
            await self._passes

    async def aclose(self) -> None:
        """Let the pass that is under way come to its end: what it released is then dispatched too."""
        self._is_closing.set()
        await self.wait()

    async def _make_passes(self) -> None:
        try:
            while not self._is_closing.is_set() and await self._is_anything_open():
                next_at = _now() + self._pass_seconds
                await drain(self._database, expires_seconds=self._expires_seconds)
                await self._calls.start_due()
                if next_at >= self._until:
                    return
                await self._rest(next_at - _now())
        except DATABASE_ERRORS as error:
            # The next sweep begins anew.
            log.warning("drain_broken_off", error=describe_fault(error))

    async def _is_anything_open(self) -> bool:
        async with self._database.as_system() as connection:
            return await drains.is_anything_open(connection)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._is_closing.wait()
        except TimeoutError:
            return


def _now() -> float:
    return asyncio.get_running_loop().time()
