"""A database that fails at the worst moments: just before a commit, and just after it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database


class Fault(StrEnum):
    """What becomes of the next transaction at its commit."""

    NONE = "none"
    ROLLED_BACK = "rolled back"
    REPLY_LOST = "reply lost"
    """Committed, and the caller is told that the connection broke."""
    KILLED = "killed"
    """Committed, and the caller is no more."""


class KilledError(Exception):
    """Nobody is there to go on; only a test sees it."""


class Pause:
    """Holds a transaction just before its commit, with every lock it has taken."""

    def __init__(self) -> None:
        self.is_reached = asyncio.Event()
        self.is_over = asyncio.Event()

    async def hold(self) -> None:
        self.is_reached.set()
        await self.is_over.wait()


class FaultyDatabase(Database):
    """The real one; each fault or pause that is set happens once."""

    fault = Fault.NONE
    pause: Pause | None = None

    def as_tenant(self, tenant_id: str, settings: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        return self._fail_at_commit(super().as_tenant(tenant_id, settings))

    def as_system(
        self, settings: str = "", *, longest_seconds: float | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._fail_at_commit(super().as_system(settings, longest_seconds=longest_seconds))

    @asynccontextmanager
    async def _fail_at_commit(
        self, transaction: AbstractAsyncContextManager[AsyncConnection]
    ) -> AsyncIterator[AsyncConnection]:
        fault, self.fault = self.fault, Fault.NONE
        pause, self.pause = self.pause, None
        async with transaction as connection:
            yield connection
            if pause:
                await pause.hold()
            if fault is Fault.ROLLED_BACK:
                raise ConnectionResetError("before the commit")
        if fault is Fault.REPLY_LOST:
            raise ConnectionResetError("after the commit")
        if fault is Fault.KILLED:
            raise KilledError


class HastyLoop(asyncio.SelectorEventLoop):
    """Sleeps pass a hundred times as fast, so that patience takes no time; deadlines stay as they are."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, **options: Any) -> Any:
        return super().call_later(delay / 100, callback, *args, **options)
