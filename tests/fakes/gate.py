"""A way to a server that can be shut or held up: to its clients, the server's death, or a server that hangs."""

import asyncio
from abc import ABC, abstractmethod


class Gate(ABC):
    """Passes bytes between a port of the loopback and the server."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.delay_seconds = 0.0
        """Of everything that passes, either way."""
        self._questions_flow, self._answers_flow = asyncio.Event(), asyncio.Event()

    @abstractmethod
    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the server itself."""

    async def open(self) -> None:
        self._questions_flow.set()
        self._answers_flow.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._pass_through, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse new connections and drop those there are, whatever is on its way."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    def hold_up(self) -> None:
        """Take connections and bytes, and pass nothing on."""
        self._questions_flow.clear()

    def hold_up_answers(self) -> None:
        """The server does what it is told, and nobody hears of it."""
        self._answers_flow.clear()

    async def _pass_through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self.connect()
        mine = {writer, server_writer}
        self._writers |= mine
        await asyncio.gather(
            self._copy(reader, server_writer, self._questions_flow),
            self._copy(server_reader, writer, self._answers_flow),
        )
        self._writers -= mine

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        try:
            while data := await reader.read(65536):
                await flows.wait()
                await asyncio.sleep(self.delay_seconds)
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()
