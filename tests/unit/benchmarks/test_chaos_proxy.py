"""The bench's proxy fails as a network does: each kind of failure lets through what it says, and no more."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from benchmarks.chaos.proxy import Direction, Proxy

SILENT_SECONDS = 0.05
"""Long enough on the loopback to tell that nothing comes."""
HEARD_SECONDS = 5.0


class Caller:
    """A client of the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, word: bytes) -> None:
        self._writer.write(word)
        await self._writer.drain()

    async def hear(self) -> bytes:
        """The next that comes, within a bounded time; empty at the end."""
        return await asyncio.wait_for(self._reader.read(100), HEARD_SECONDS)

    async def ask(self, word: bytes) -> bytes:
        await self.say(word)
        return await self.hear()

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self._reader.read(100), SILENT_SECONDS)
        except TimeoutError:
            return True
        return False

    def hang_up(self) -> None:
        self._writer.close()


class Echo:
    """A server that says back what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.has_ended = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            self.heard.append(data)
            writer.write(data)
        self.has_ended.set()
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    with Proxy(partial(asyncio.open_connection, "127.0.0.1", echo.port)) as proxy:
        yield proxy


async def call(proxy: Proxy) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))


async def test_everything_passes_both_ways_the_end_included(proxy: Proxy, echo: Echo) -> None:
    caller = await call(proxy)
    assert await caller.ask(b"hello") == b"hello"
    caller.hang_up()
    await asyncio.wait_for(echo.has_ended.wait(), HEARD_SECONDS)


async def test_a_stalled_connection_stays_open_and_goes_on_where_it_stopped(proxy: Proxy, echo: Echo) -> None:
    caller = await call(proxy)
    await caller.ask(b"before")
    proxy.stall()
    await caller.say(b"meanwhile")
    assert await caller.hears_nothing()
    assert echo.heard == [b"before"]
    proxy.forward()
    assert await caller.hear() == b"meanwhile"


async def test_a_connection_made_during_a_stall_is_taken_and_hears_nothing(proxy: Proxy) -> None:
    proxy.stall()
    caller = await call(proxy)
    await caller.say(b"anyone?")
    assert await caller.hears_nothing()
    proxy.forward()
    assert await caller.hear() == b"anyone?"


async def test_nobody_hears_of_an_end_during_a_stall(proxy: Proxy, echo: Echo) -> None:
    caller = await call(proxy)
    await caller.ask(b"before")
    proxy.stall()
    caller.hang_up()
    await asyncio.sleep(SILENT_SECONDS)
    assert not echo.has_ended.is_set()


async def test_stranded_connections_are_dead_for_ever_and_new_ones_pass(proxy: Proxy, echo: Echo) -> None:
    stranded = await call(proxy)
    await stranded.ask(b"before")
    proxy.strand()
    fresh = await call(proxy)
    assert await fresh.ask(b"fresh") == b"fresh"
    proxy.forward()
    await stranded.say(b"meanwhile")
    assert await stranded.hears_nothing()
    assert echo.heard == [b"before", b"fresh"]


async def test_what_goes_to_the_server_is_swallowed(proxy: Proxy, echo: Echo) -> None:
    caller = await call(proxy)
    await caller.ask(b"before")
    proxy.swallow(Direction.TO_SERVER)
    await caller.say(b"lost")
    assert await caller.hears_nothing()
    assert echo.heard == [b"before"]


async def test_what_goes_to_the_client_is_swallowed_and_the_other_way_passes(proxy: Proxy, echo: Echo) -> None:
    caller = await call(proxy)
    await caller.ask(b"before")
    proxy.swallow(Direction.TO_CLIENT)
    for word in (b"heard", b"too"):
        await caller.say(word)
        assert await caller.hears_nothing()
    assert echo.heard == [b"before", b"heard", b"too"]


async def test_a_stream_with_a_gap_never_goes_on(proxy: Proxy, echo: Echo) -> None:
    torn, whole = await call(proxy), await call(proxy)
    await whole.ask(b"before")
    await torn.ask(b"before too")
    proxy.swallow(Direction.TO_SERVER)
    await torn.say(b"lost")
    assert await torn.hears_nothing()
    proxy.forward()
    await torn.say(b"after the gap")
    assert await torn.hears_nothing()
    assert await whole.ask(b"goes on") == b"goes on"
    assert echo.heard == [b"before", b"before too", b"goes on"]


async def test_a_cut_resets_what_is_open_and_what_comes_until_all_passes_again(proxy: Proxy) -> None:
    caller = await call(proxy)
    await caller.ask(b"before")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await caller.hear()
    with pytest.raises(ConnectionResetError):
        await (await call(proxy)).ask(b"anyone?")
    proxy.forward()
    assert await (await call(proxy)).ask(b"again") == b"again"


async def test_a_server_that_is_gone_is_an_end_not_a_silence(echo: Echo) -> None:
    with Proxy(partial(asyncio.open_connection, "127.0.0.1", 1)) as proxy:
        assert await (await call(proxy)).hear() == b""


async def test_closing_the_proxy_ends_even_what_is_stalled(echo: Echo, caplog: pytest.LogCaptureFixture) -> None:
    with Proxy(partial(asyncio.open_connection, "127.0.0.1", echo.port)) as proxy:
        caller = await call(proxy)
        await caller.ask(b"before")
        proxy.stall()
        await caller.say(b"meanwhile")
    assert await caller.hear() == b""
    assert caplog.text == ""
