"""A way to a Postgres that can be shut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from tests.databases import change_url
from tests.fakes.gate import Gate


class PostgresGate(Gate):
    """Leads to the server's socket."""

    def __init__(self, url: str) -> None:
        super().__init__()
        query = parse_qs(urlsplit(url).query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._url = url

    @property
    def url(self) -> str:
        """The same user and database, through the gate."""
        return change_url(self._url, query=f"host=127.0.0.1&port={self._port}")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._socket)


@asynccontextmanager
async def open_gate(url: str) -> AsyncIterator[PostgresGate]:
    gate = PostgresGate(url)
    await gate.open()
    yield gate
    await gate.shut()
