"""A way to a Postgres that can be shut: to its clients, shutting it is the server's death."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from tests.databases import change_url


class PostgresGate:
    """Passes bytes between a port of the loopback and the server's socket."""

    def __init__(self, url: str) -> None:
        query = parse_qs(urlsplit(url).query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self._url = url

    @property
    def url(self) -> str:
        """The same user and database, through the gate."""
        return change_url(self._url, query=f"host=127.0.0.1&port={self._port}")

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_through, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse new connections and drop those there are, whatever is on its way."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _pass_through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        mine = {writer, server_writer}
        self._writers |= mine
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))
        self._writers -= mine


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def open_gate(url: str) -> AsyncIterator[PostgresGate]:
    gate = PostgresGate(url)
    await gate.open()
    yield gate
    await gate.shut()
