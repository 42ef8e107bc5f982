"""A TCP proxy on the loopback that fails as networks do: silently, in one direction, or for connections of before only.

It runs in a thread of the bench. What it stands before notices nothing but what a real network would let it notice: a
connection that is stalled stays open on both sides, and neither hears that the other has closed it.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import Enum, auto
from threading import Thread
from typing import Any, Final, Self

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection to what stands behind, such as `partial(asyncio.open_unix_connection, path)`."""

CHUNK_BYTES: Final = 65536
COMMAND_SECONDS: Final = 10.0
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset instead of an end."""


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = auto()
    TO_CLIENT = auto()


class Link:
    """One client's connection, and ours to the server for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._writers = {Direction.TO_SERVER: server, Direction.TO_CLIENT: client}
        self._passable = asyncio.Event()
        self._passable.set()
        self._swallowed: Direction | None = None
        self._has_gap = False
        self._is_dead = False

    async def carry(self, direction: Direction, reader: asyncio.StreamReader) -> None:
        """Everything that comes from one side, its end included, for as long as it may pass."""
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                await self._give(direction, data)
        await self._give(direction, b"")

    def hold(self) -> None:
        """Nothing passes, in either direction, until `release`."""
        self._swallowed = None
        self._passable.clear()

    def die(self) -> None:
        """Nothing passes ever again, and nobody is told."""
        self._is_dead = True
        self.hold()

    def swallow(self, direction: Direction) -> None:
        """What goes this way is lost; the other way passes."""
        self.release()
        self._swallowed = direction

    def release(self) -> None:
        """What was held back goes on. A stream with a gap never does: who lost bytes is dead from here on."""
        self._swallowed = None
        if self._has_gap:
            self.die()
        if not self._is_dead:
            self._passable.set()

    def reset(self) -> None:
        """Both sides are told at once."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()

    async def _give(self, direction: Direction, data: bytes) -> None:
        if direction is self._swallowed:
            self._has_gap = True
            return
        await self._passable.wait()
        writer = self._writers[direction]
        with suppress(ConnectionError):
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()


class Proxy:
    """Everything passes until it is told otherwise; what it is told holds until the next order."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[Link] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._treat_new: Callable[[Link], None] = Link.release
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._order(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._order(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(COMMAND_SECONDS)
        self._loop.close()

    def forward(self) -> None:
        """Everything passes, first what was held back."""
        self._treat(Link.release, Link.release)

    def stall(self) -> None:
        """Nothing passes; connections stay open, new ones are taken and hear nothing."""
        self._treat(Link.hold, Link.hold)

    def strand(self) -> None:
        """Half-open: the connections of now are dead and nobody is told; new ones pass."""
        self._treat(Link.die, Link.release)

    def swallow(self, direction: Direction) -> None:
        """What goes this way is lost, on connections of now and on new ones; the other way passes."""

        def apply(link: Link) -> None:
            link.swallow(direction)

        self._treat(apply, apply)

    def cut(self) -> None:
        """Every connection is reset, and new ones are as soon as they come."""
        self._treat(Link.reset, Link.reset)

    def _treat(self, known: Callable[[Link], None], new: Callable[[Link], None]) -> None:
        async def treat() -> None:
            self._treat_new = new
            for link in tuple(self._links):
                known(link)

        self._order(treat())

    def _order(self, command: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(command, self._loop).result(COMMAND_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    def _begin(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._carry(from_client, client))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        task.add_done_callback(lambda _: client.close())

    async def _carry(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            from_server, server = await self._connect()
        except OSError:
            return
        link = Link(client, server)
        self._links.add(link)
        self._treat_new(link)
        try:
            to_server = link.carry(Direction.TO_SERVER, from_client)
            await asyncio.gather(to_server, link.carry(Direction.TO_CLIENT, from_server))
        finally:
            server.close()
            self._links.discard(link)

    async def _shut(self) -> None:
        self._server.close()
        for task in tuple(self._carrying):
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
