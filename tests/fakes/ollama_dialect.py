"""A server that speaks Ollama's own dialect: whole answers and NDJSON streams of chat, generate and embed.

It keeps Ollama's habits: it streams unless told otherwise, numbers tool calls, counts tokens in the last line only,
answers `{"error": text}`, and puts that same line into a stream that fails. Faults replace one answer each.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Lines = list[Json | bytes]
CREATED = "2026-01-01T00:00:00Z"


@dataclass
class OllamaServer:
    """What it is to say, and what it was asked."""

    base_url: str = ""
    models: tuple[str, ...] = ("qwen3:8b", "nomic-embed-text")
    say: str = "two words"
    tool_calls: list[Json] = field(default_factory=list)
    """Each a name and its arguments; called where tools are offered."""
    numbers_tool_calls: bool = True
    """Older servers do not."""
    lines: Callable[[Lines], Lines] = list
    """May change the lines before they are sent; a whole answer is made of them too."""
    embeddings: object = None
    """In the place of the vectors."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ends: str = "cleanly"
    """Or `reset`, or `hang`: how a stream ends after its lines."""
    thinks_for_ever: bool = False
    seconds_between_lines: float = 0.0
    received: list[tuple[str, Mapping[str, str], Json]] = field(default_factory=list)
    """Path, headers and body."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """The caller closed its connection in the middle of an answer."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text() or "{}")
        self.received.append((request.path, dict(request.headers), body))
        if self.status != 200:
            return web.json_response({"error": "as people read it"}, status=self.status, headers=self.headers)
        if self.thinks_for_ever:
            await asyncio.Event().wait()
        if request.method == "GET":
            return web.json_response({"version": "0.12.6", "models": [{"name": name} for name in self.models]})
        if body.get("model") not in self.models:
            return web.json_response({"error": f"model '{body.get('model')}' not found"}, status=404)
        if request.path == "/api/embed":
            return web.json_response(self._embed(body))
        lines = self.lines(list(self._chat(body) if request.path == "/api/chat" else self._generate(body)))
        if body.get("stream") is False:
            return web.json_response(_join(lines))
        return await self._send(request, lines)

    async def _send(self, request: web.Request, lines: Lines) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            for line in lines:
                written = line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() + b"\n"
                await response.write(written)
                await asyncio.sleep(self.seconds_between_lines)
            if self.ends == "hang":
                await asyncio.Event().wait()
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise
        if self.ends == "reset" and request.transport is not None:
            request.transport.close()
        return response

    def _chat(self, body: Json) -> Iterator[Json]:
        start = {"model": body["model"], "created_at": CREATED}
        if body.get("tools") and self.tool_calls:
            yield {**start, "message": {"role": "assistant", "content": "", "tool_calls": self._call()}, "done": False}
        else:
            for piece in self.say.split(" "):
                yield {**start, "message": {"role": "assistant", "content": f"{piece} "}, "done": False}
        yield {**start, "message": {"role": "assistant", "content": ""}, **self._finish(body)}

    def _generate(self, body: Json) -> Iterator[Json]:
        start = {"model": body["model"], "created_at": CREATED}
        for piece in self.say.split(" "):
            yield {**start, "response": f"{piece} ", "done": False}
        yield {**start, "response": "", **self._finish(body)}

    def _call(self) -> list[Json]:
        numbered = [{"id": f"call_{n}", "function": {"index": n, **call}} for n, call in enumerate(self.tool_calls)]
        return numbered if self.numbers_tool_calls else [{"function": call} for call in self.tool_calls]

    def _finish(self, body: Json) -> Json:
        cut = body.get("options", {}).get("num_predict") == 1
        return {"done": True, "done_reason": "length" if cut else "stop", "prompt_eval_count": 11, "eval_count": 5}

    def _embed(self, body: Json) -> Json:
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if self.embeddings is not None:
            return {"embeddings": self.embeddings}
        vectors = [[float(len(text))] * body.get("dimensions", 4) for text in inputs]
        return {"model": body["model"], "embeddings": vectors, "prompt_eval_count": 7}


def _join(lines: Lines) -> Json:
    """What the stream would have said, in one answer."""
    whole = dict(lines[-1])
    if "response" in whole:
        return {**whole, "response": "".join(line["response"] for line in lines).strip()}
    messages = [line["message"] for line in lines]
    message = {"role": "assistant", "content": "".join(message["content"] for message in messages).strip()}
    calls = [call for said in messages for call in said.get("tool_calls", [])]
    return {**whole, "message": {**message, "tool_calls": calls} if calls else message}


@asynccontextmanager
async def serve_ollama() -> AsyncIterator[OllamaServer]:
    server = OllamaServer()
    app = web.Application()
    app.router.add_route("*", "/api/{what}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    server.base_url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
