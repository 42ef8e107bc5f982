"""A way to a Redis that can be shut or held up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

from tests.fakes.gate import Gate


class RedisGate(Gate):
    """Leads to the server at a URL."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._address = urlsplit(url)

    @property
    def url(self) -> str:
        """The same database, through the gate."""
        credentials, at, _ = self._address.netloc.rpartition("@")
        return urlunsplit(self._address._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._address.hostname, self._address.port)


@asynccontextmanager
async def open_redis_gate(url: str) -> AsyncIterator[RedisGate]:
    gate = RedisGate(url)
    await gate.open()
    yield gate
    await gate.shut()
