"""The warden as its worker knows it: started when first needed, and again when it has ended.

Each ward has a socket of its own to the worker; its end is handed to the warden, which forks for it.
"""

import asyncio
import socket
import sys
from asyncio import StreamReader, StreamWriter, subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog

from orchestrator.isolation.wire import LARGEST_LINE_BYTES

log = structlog.get_logger()

PROGRAM: Final = (sys.executable, "-P", "-m", "orchestrator.warden")
END_SECONDS: Final = 2.0
"""For it to end by itself."""


class WardenProcess:
    """One at a time; started by whoever asks first."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._process: subprocess.Process | None = None
        self._starting = asyncio.Lock()

    @asynccontextmanager
    async def fork(self) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        """Talk to a new ward; leaving the block ends it."""
        ours, theirs = socket.socketpair()
        with theirs:
            await self._hand_over(theirs)
        reader, writer = await asyncio.open_connection(sock=ours, limit=LARGEST_LINE_BYTES)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def aclose(self) -> None:
        """Closing the socket is the word; a warden that does not hear it is killed."""
        if self._control is None or self._process is None:
            return
        self._control.close()
        self._control = None
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _hand_over(self, theirs: socket.socket) -> None:
        async with self._starting:
            if self._control is None or not _send(self._control, theirs):
                _send(await self._start(), theirs)

    async def _start(self) -> socket.socket:
        await self.aclose()
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        with theirs:
            # A session of its own: when the worker's group is killed, somebody has to end the wards.
            self._process = await subprocess.create_subprocess_exec(
                *PROGRAM, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )
        log.info("warden_started", pid=self._process.pid)
        return self._control


def _send(control: socket.socket, theirs: socket.socket) -> bool:
    """False when the warden is gone."""
    try:
        socket.send_fds(control, [b"f"], [theirs.fileno()])
    except OSError:
        return False
    return True
