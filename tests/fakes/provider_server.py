"""A real HTTP server on the loopback that speaks one provider's dialect, and misbehaves on demand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Dialect:
    """How one provider writes an answer and an error."""

    provider: str
    path: str
    """Where it is asked."""
    base_path: str
    """What of that path belongs to the base URL."""
    answer: Callable[[str, str], Json]
    """From the text and its own word for the finish reason."""
    error: Callable[[str], Json]
    """From the text for people."""
    stopped: str
    cut_by_length: str
    end_marker: str
    """Without this key of `find_marked` an answer was cut off."""
    find_marked: Callable[[Json], Json]


def _answer_openai(content: str, finish_reason: str) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "model-as-served",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
    }


def _answer_anthropic(content: str, stop_reason: str) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "model-as-served",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": content}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 5},
    }


def _answer_ollama(content: str, done_reason: str) -> Json:
    return {
        "model": "model-as-served",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content},
        "done": True,
        "done_reason": done_reason,
        "prompt_eval_count": 11,
        "eval_count": 5,
    }


OPENAI = Dialect(
    provider="openai_compatible",
    path="/v1/chat/completions",
    base_path="/v1",
    answer=_answer_openai,
    error=lambda text: {"error": {"message": text, "type": "some_error", "param": None, "code": None}},
    stopped="stop",
    cut_by_length="length",
    end_marker="finish_reason",
    find_marked=lambda answer: answer["choices"][0],
)
ANTHROPIC = Dialect(
    provider="anthropic",
    path="/v1/messages",
    base_path="",
    answer=_answer_anthropic,
    error=lambda text: {"type": "error", "error": {"type": "some_error", "message": text}, "request_id": "req_1"},
    stopped="end_turn",
    cut_by_length="max_tokens",
    end_marker="stop_reason",
    find_marked=lambda answer: answer,
)
OLLAMA = Dialect(
    provider="ollama",
    path="/api/chat",
    base_path="",
    answer=_answer_ollama,
    error=lambda text: {"error": text},
    stopped="stop",
    cut_by_length="length",
    end_marker="done",
    find_marked=lambda answer: answer,
)
DIALECTS = (OPENAI, ANTHROPIC, OLLAMA)


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    headers: Mapping[str, str]
    body: Json


@dataclass
class ProviderServer:
    """Answers `behave` to every request at the dialect's path."""

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
        self.received.append(Received(request.headers, await request.json()))
        self.connections.add(request.transport)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.asked.set()
        try:
            return await self.behave(request)
        except asyncio.CancelledError:
            self.hung_up.set()
            raise
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def serve(dialect: Dialect) -> AsyncIterator[ProviderServer]:
    """By default it answers `fine`."""
    server = ProviderServer(dialect, send_json(dialect.answer("fine", dialect.stopped)))
    app = web.Application()
    app.router.add_post(dialect.path, server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=512)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.base_url = f"http://{host}:{port}{dialect.base_path}"
    try:
        yield server
    finally:
        await runner.cleanup()


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


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Closes the connection without a word."""
    _cut(request)
    return web.Response()


async def never_answer(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def trickle(request: web.Request) -> web.StreamResponse:
    """A byte now and then, for ever: each read is quick, the whole never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


def _cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort() if request.transport.get_write_buffer_size() else request.transport.close()
