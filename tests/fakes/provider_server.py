"""A real HTTP server on the loopback that speaks one provider's dialect, and misbehaves on demand."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.fakes.dialects import ANTHROPIC, DIALECTS, OLLAMA, OPENAI, Dialect, Json

__all__ = ["ANTHROPIC", "DIALECTS", "OLLAMA", "OPENAI", "Dialect"]

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    headers: Mapping[str, str]
    body: Json
    path: str = ""


@dataclass
class ProviderServer:
    """Answers `behave` to every request, whatever its path."""

    dialect: Dialect
    behave: Behaviour
    base_url: str = ""
    received: list[Received] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    connections: set[object] = field(default_factory=set)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """The caller closed its connection before it had an answer."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.received.append(Received(request.headers, json.loads(await request.text() or "{}"), request.path))
        self.connections.add(request.transport)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.asked.set()
        try:
            return await self.behave(request)
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def serve(dialect: Dialect, context: ssl.SSLContext | None = None) -> AsyncIterator[ProviderServer]:
    """By default it answers `fine`, whole or as a stream; over TLS where `context` is given."""
    server = ProviderServer(dialect, answer_as_asked(dialect, "fine"))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=512, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.base_url = f"{'https' if context else 'http'}://{host}:{port}{dialect.base_path}"
    try:
        yield server
    finally:
        await runner.cleanup()


def answer_as_asked(dialect: Dialect, text: str) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text() or "{}")
        if body.get("stream"):
            return await send_stream(dialect, dialect.stream(text))(request)
        return await send_json(dialect.answer(text, dialect.stopped))(request)

    return behave


def send_json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=status, headers=headers)

    return behave


def send_bytes(body: bytes, status: int = 200, content_type: str = "application/json") -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type=content_type)

    return behave


def send_half(document: bytes) -> Behaviour:
    """Promises a whole body, sends half of it, and closes the connection."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(document))})
        await response.prepare(request)
        await response.write(document[: len(document) // 2])
        _cut(request)
        return response

    return behave


def send_stream(
    dialect: Dialect,
    pieces: Sequence[bytes],
    *,
    then: Behaviour | None = None,
    seconds_between: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> Behaviour:
    """The pieces as they are, and the end; or `then` instead of the end."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": dialect.stream_type, **(headers or {})})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(seconds_between)
        if then is not None:
            await then(request)
        return response

    return behave


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Closes the connection without a word."""
    _cut(request)
    return web.Response()


async def reset(request: web.Request) -> web.StreamResponse:
    """Breaks the connection with a reset, as a crash or a firewall does."""
    assert request.transport is not None
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


async def never_answer(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def begin_and_stall(request: web.Request) -> web.StreamResponse:
    """The headers and the first bytes of a body come at once, the rest never."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"model": "m", ')
    return await never_answer(request)


async def trickle(request: web.Request) -> web.StreamResponse:
    """A byte now and then, for ever: each read is quick, the whole never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def pour(request: web.Request) -> web.StreamResponse:
    """As much as the caller takes, for ever."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b"data: " + b"x" * 60_000)


def _cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort() if request.transport.get_write_buffer_size() else request.transport.close()
