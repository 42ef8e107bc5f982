"""HTTP as servers really speak it, and as they should not; byte for byte, over real sockets."""

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from llm_pool.providers import http_conversation, http_keeping
from llm_pool.providers.http import Connections, HttpAnswer
from shared.errors import LLMBrokenAnswerError, LLMConnectionError, LLMError, LLMTimeoutError
from tests.fakes.raw_server import RawServer, Speak, say, serve_raw

FINE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"fine": 1}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"fin\r\n6;note=x\r\ne": 1}\r\n0\r\n'
UNTIL_CLOSED = b'HTTP/1.0 200 OK\r\nX-Kind: old\r\n\r\n{"fine": 1}'


@asynccontextmanager
async def spoken_to(speak: Speak, **options: int) -> AsyncIterator[tuple[Connections, RawServer]]:
    """`options` are those of `Connections`."""
    connections = Connections(**options)
    async with serve_raw(speak) as server:
        try:
            yield connections, server
        finally:
            await connections.aclose()


async def ask(connections: Connections, server: RawServer, path: str = "/", seconds: float = 5.0) -> HttpAnswer:
    return await connections.post_json(server.url + path, {"X-Ours": "yes"}, {"a": 1}, seconds)


async def ask_once(speak: Speak, **options: int) -> HttpAnswer:
    async with spoken_to(speak, **options) as (connections, server):
        return await ask(connections, server)


async def fail_once(speak: Speak, **options: int) -> LLMError:
    with pytest.raises(LLMError) as caught:
        await ask_once(speak, **options)
    return caught.value


@pytest.mark.parametrize(
    "speak",
    [
        say(FINE),
        say(*(FINE[at : at + 1] for at in range(len(FINE)))),
        say(CHUNKED + b"\r\n"),
        say(CHUNKED + b"X-Trailer: late\r\n\r\n"),
        say(UNTIL_CLOSED, closes=True),
        say(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", FINE),
        say(FINE.replace(b"OK", b"")),
        say(FINE.replace(b"\r\nContent-Type", b"\r\nContent-Encoding: identity\r\nContent-Type")),
    ],
    ids=["plain", "byte by byte", "chunked", "trailers", "until closed", "interim", "no reason", "identity"],
)
async def test_an_answer_in_each_of_its_forms(speak: Speak) -> None:
    answer = await ask_once(speak)
    assert (answer.status, answer.document) == (200, {"fine": 1})
    assert "link" not in answer.headers


async def test_the_time_allowed_bounds_the_shaking_of_hands_too() -> None:
    """The TLS server here never says hello."""
    async with spoken_to(say(FINE)) as (connections, server):
        server.url = server.url.replace("http", "https")
        with pytest.raises(LLMTimeoutError, match=r"no answer within 0\.2 s"):
            await ask(connections, server, seconds=0.2)


@given(st.lists(st.integers(0, len(CHUNKED) + 2), max_size=8))
async def test_an_answer_is_the_same_wherever_the_network_cuts_it(cuts: list[int]) -> None:
    whole, at = CHUNKED + b"\r\n", 0
    pieces = []
    for cut in [*sorted(cuts), len(whole)]:
        pieces.append(whole[at:cut])
        at = cut
    assert (await ask_once(say(*filter(None, pieces)))).document == {"fine": 1}


async def test_names_of_headers_come_in_lower_case_and_one_said_twice_has_both() -> None:
    answer = await ask_once(say(FINE.replace(b"\r\nContent-Type", b"\r\nX-Limit: 1\r\nx-limit: 2\r\nContent-Type")))
    assert answer.headers["x-limit"] == "1, 2"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b'{"fine": 1}')),
        ("GZIP", gzip.compress(b'{"fine": 1}')),
        ("deflate", zlib.compress(b'{"fine": 1}')),
    ],
)
async def test_a_packed_answer_is_unpacked(encoding: str, packed: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    assert (await ask_once(say(head, packed[:9], packed[9:]))).document == {"fine": 1}


async def test_a_small_answer_that_unpacks_to_a_large_one_is_given_up_without_taking_it_in() -> None:
    packed = gzip.compress(b"x" * 50_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    tracemalloc.start()
    try:
        assert "too large" in str(await fail_once(say(head + packed), largest_answer_bytes=80_000))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


async def test_an_answer_that_announces_too_much_is_not_waited_for() -> None:
    error = await fail_once(say(b"HTTP/1.1 200 OK\r\nContent-Length: 50001\r\n\r\n"), largest_answer_bytes=50_000)
    assert "too large" in str(error)


@pytest.mark.parametrize(
    ("speak", "kind"),
    [
        (say(closes=True), LLMConnectionError),
        (say(FINE[:30], closes=True), LLMConnectionError),
        (say(FINE[:-3], closes=True), LLMBrokenAnswerError),
        (say(CHUNKED[:-5], closes=True), LLMBrokenAnswerError),
        (say(CHUNKED.replace(b"5\r\n{", b"zz\r\n{")), LLMBrokenAnswerError),
        (say(b"SSH-2.0-OpenSSH_9.2\r\n"), LLMConnectionError),
        (say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"), LLMConnectionError),
        (say(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx"), LLMBrokenAnswerError),
        (say(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nxxxx"), LLMBrokenAnswerError),
        (say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), LLMConnectionError),
    ],
    ids=[
        "nothing", "half a head", "half a body", "half of the chunks", "no chunk", "no HTTP", "another protocol",
        "packed unasked", "packed badly", "two lengths",
    ],
)  # fmt: skip
async def test_what_is_no_whole_answer_is_typed(speak: Speak, kind: type[LLMError]) -> None:
    error = await fail_once(speak)
    assert type(error) is kind
    assert getattr(error, "was_sent", True)


async def test_what_is_sent() -> None:
    async with spoken_to(say(FINE)) as (connections, server):
        await ask(connections, server, "/v1/a b?c=%20d#e")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /v1/a%20b?c=%20d HTTP/1.1"
    assert body == b'{"a":1}'
    sent = dict(header.split(": ") for header in headers)
    assert len(sent) == len(headers)
    assert sent["Host"] == server.url.removeprefix("http://")
    assert (sent["X-Ours"], sent["Content-Length"], sent["Content-Type"]) == ("yes", "7", "application/json")


async def test_an_account_in_the_address_is_sent_unless_there_is_a_key() -> None:
    async with spoken_to(say(FINE)) as (connections, server):
        url = server.url.replace("http://", "http://me:p%40ss@")
        await connections.get_json(url, {}, 5.0)
        await connections.get_json(url, {"Authorization": "Bearer key"}, 5.0)
    assert b"Authorization: Basic bWU6cEBzcw==\r\n" in server.requests[0]
    assert b"Basic" not in server.requests[1]


@pytest.mark.parametrize("value", ["key\r\nX-Other: yes", "key\n", "key\r"])
async def test_a_header_that_holds_the_end_of_a_line_is_not_sent(value: str) -> None:
    async with spoken_to(say(FINE)) as (connections, server):
        with pytest.raises(LLMConnectionError, match="end of a line") as caught:
            await connections.get_json(server.url, {"Authorization": value}, 5.0)
    assert not caught.value.was_sent
    assert not server.requests


@pytest.mark.parametrize(
    "url", ["ftp://localhost/", "http://", "http://localhost:port/", "nonsense", "http://" + "ä" * 80]
)
async def test_an_address_that_is_none_is_not_reachable(url: str) -> None:
    with pytest.raises(LLMConnectionError, match="cannot be asked") as caught:
        await Connections().get_json(url, {}, 5.0)
    assert not caught.value.was_sent


@pytest.mark.parametrize(
    ("speak", "connections_for_three"),
    [
        (say(FINE), 1),
        (say(CHUNKED + b"\r\n"), 1),
        (say(FINE.replace(b"\r\nContent-Type", b"\r\nConnection: close\r\nContent-Type")), 3),
        (say(UNTIL_CLOSED, closes=True), 3),
        (say(FINE + FINE), 3),
        (say(FINE + b"HTTP/1.1 200 OK\r\nX-Next: on"), 3),
    ],
    ids=["length", "chunks", "close", "until closed", "an answer too many", "half of one too many"],
)
async def test_a_connection_is_kept_where_both_sides_keep_it(speak: Speak, connections_for_three: int) -> None:
    async with spoken_to(speak) as (connections, server):
        for _ in range(3):
            answer = await ask(connections, server)
            assert answer.document == {"fine": 1}
            assert "x-next" not in answer.headers
    assert server.connections == connections_for_three


async def test_what_comes_between_questions_is_nobodys_answer() -> None:
    async with spoken_to(say(FINE)) as (connections, server):
        await ask(connections, server)
        server.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await server.writers[0].drain()
        await asyncio.sleep(0.05)
        assert (await ask(connections, server)).status == 200
    assert server.connections == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    async with spoken_to(say(FINE)) as (connections, server):
        await ask(connections, server)
        server.writers[0].close()
        await asyncio.sleep(0.05)
        await ask(connections, server)
    assert server.connections == 2


async def test_a_connection_that_ends_in_the_moment_it_would_be_used_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server has closed is known before the loop says that the connection is lost."""
    lost = http_conversation.Conversation.connection_lost
    later = asyncio.Event()

    def lose_late(conversation: http_conversation.Conversation, error: Exception | None) -> None:
        later.set()
        asyncio.get_running_loop().call_later(0.5, lost, conversation, error)

    async with spoken_to(say(FINE)) as (connections, server):
        await ask(connections, server)
        monkeypatch.setattr(http_conversation.Conversation, "connection_lost", lose_late)
        server.writers[0].close()
        await later.wait()
        await ask(connections, server)
    assert server.connections == 2


async def test_a_head_without_end_is_given_up() -> None:
    async def go_on(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"x" * 10_000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    assert "head of the answer is too large" in str(await fail_once(go_on))


async def test_what_was_idle_for_long_is_closed_and_what_was_used_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_keeping, "KEPT_SECONDS", 1.0)
    async with spoken_to(say(FINE)) as (connections, server):
        await asyncio.gather(*(ask(connections, server) for _ in range(2)))
        for _ in range(25):
            await asyncio.sleep(0.1)
            await ask(connections, server)
        assert server.connections == 2
        assert server.ended.is_set()
        server.ended.clear()
        await asyncio.wait_for(server.ended.wait(), 5)


async def test_what_was_idle_for_long_is_not_used_though_nobody_has_tidied_up_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with spoken_to(say(FINE)) as (connections, server):
        await ask(connections, server)
        monkeypatch.setattr(http_keeping, "KEPT_SECONDS", 0.0)
        await ask(connections, server)
        assert server.connections == 2
        await asyncio.wait_for(server.ended.wait(), 5)


async def test_a_question_that_was_answered_before_it_was_read_does_not_keep_its_connection() -> None:
    """The rest of it would come before the next."""
    reached = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await reached.wait()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connections = Connections()
    answer = await connections.post(url, {}, b"x" * 30_000_000)
    assert answer.status == 413
    assert connections._kept.take(url) is None
    reached.set()
    server.close()


async def test_a_question_that_is_given_up_is_not_sent_to_its_end() -> None:
    reached, heard = asyncio.Event(), asyncio.Event()
    rest = 0

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal rest
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        await heard.wait()
        while piece := await reader.read(1_000_000):
            rest += len(piece)
        writer.close()
        reached.set()

    server = await asyncio.start_server(read_late, "127.0.0.1", 0, limit=1024)
    connections = Connections()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    asking = asyncio.ensure_future(connections.post(url, {}, b"x" * 30_000_000))
    await reached.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    reached.clear()
    heard.set()
    await asyncio.wait_for(reached.wait(), 10)
    assert rest < 20_000_000  # the kernels on both sides hold some
    assert not connections._kept._in_use
    server.close()


async def test_a_body_without_end_is_not_taken_in_faster_than_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_conversation, "MOST_UNREAD_BYTES", 10_000)
    written = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while written < 50_000_000:
            writer.write(b"x" * 100_000)
            await writer.drain()
            written += 100_000

    async with spoken_to(pour) as (connections, server), connections.open("GET", server.url, {}) as answer:
        await asyncio.sleep(0.5)
        before = written
        await asyncio.sleep(0.2)
        assert written == before < 20_000_000  # the kernels on both sides hold some
        taken = 0
        async for piece in answer:
            taken += len(piece)
            if taken > before + 1_000_000:
                break
        assert written > before


async def test_the_time_allowed_is_told_and_the_socket_closed() -> None:
    async def stay_silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with spoken_to(stay_silent) as (connections, server):
        with pytest.raises(LLMTimeoutError, match=r"no answer within 0\.1 s"):
            await ask(connections, server, seconds=0.1)
        assert await asyncio.wait_for(server.readers[0].read(), 2) == b""


async def test_whoever_waits_while_all_is_closed_is_told() -> None:
    async def stay_silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with spoken_to(stay_silent) as (connections, server):
        asking = asyncio.ensure_future(ask(connections, server))
        await server.asked.wait()
        await connections.aclose()
        with pytest.raises(LLMConnectionError):
            await asyncio.wait_for(asking, 2)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_over_tls(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    connections = Connections()
    authority.configure_trust(connections.ssl_context)
    async with serve_raw(say(FINE), host="127.0.0.1", context=context) as server:
        server.url = server.url.replace("127.0.0.1", host)
        for _ in range(2):
            assert (await ask(connections, server)).document == {"fine": 1}
        assert server.connections == 1
        strangers = Connections()
        with pytest.raises(LLMConnectionError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await ask(strangers, server)
        assert not caught.value.was_sent
    await connections.aclose()


def test_in_another_loop() -> None:
    """Of its own kind of connection and options, as under uvicorn with all its extras."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed, nor needed")

    async def ask_twice() -> list[object]:
        async with spoken_to(say(CHUNKED + b"\r\n")) as (connections, server):
            return [(await ask(connections, server)).document for _ in range(2)]

    assert uvloop.run(ask_twice()) == [{"fine": 1}] * 2


async def test_over_ipv6() -> None:
    async with serve_raw(say(FINE), host="::1") as server:
        connections = Connections()
        assert (await ask(connections, server)).document == {"fine": 1}
        await connections.aclose()
    assert f"Host: {server.url.removeprefix('http://')}\r\n".encode() in server.requests[0]
