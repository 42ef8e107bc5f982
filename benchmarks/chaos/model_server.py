"""A provider in a process of its own, speaking OpenAI's dialect: writes down every call, and charges for it.

    python -m benchmarks.chaos.model_server RECORD PORT CONTROL_PORT

The control port is another one, so that the first may refuse connections. What is written goes out with one
append, so that a reader never sees a torn line and nothing is lost with this process.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.chaos.behaviour import Behaviour, choose_behaviour
from benchmarks.chaos.calls import COMPLETION_TOKENS, build_bill, count_prompt_tokens


@dataclass(slots=True)
class Asked:
    """A call that is being answered."""

    number: int
    question: str
    has_begun: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Server:
    """The state of the server: how it behaves, and the calls it has open."""

    def __init__(self, record: Path, port: int) -> None:
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._port = port
        self._behaviours: dict[str, Behaviour] = {}
        self._open: dict[int, Asked] = {}
        self._count = 0
        self._site: web.TCPSite | None = None

    async def start(self, control_port: int) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen(is_wanted=True)
        control = web.Application()
        control.router.add_post("/behaviours", self.set_behaviour)
        control.router.add_post("/releases", self.release)
        control.router.add_post("/listening", self.set_listening)
        runner = web.AppRunner(control, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", control_port).start()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        if self._site is None:  # a connection kept alive from before
            return cut(request)
        asked = self._note_arrival((await request.json())["messages"][-1]["content"])
        try:
            return await self._answer(request, asked)
        except (asyncio.CancelledError, ConnectionError):
            bill = build_bill(asked.question, completion_tokens=0) if asked.has_begun else Decimal(0)
            self._note_end(asked, "hung_up", None, bill)
            raise
        finally:
            self._open.pop(asked.number, None)

    async def set_behaviour(self, request: web.Request) -> web.Response:
        told = await request.json()
        prefix = told.pop("prefix")
        self._behaviours[prefix] = Behaviour(**told)
        return web.Response()

    async def release(self, request: web.Request) -> web.Response:
        for number in await request.json():
            if number in self._open:
                self._open[number].released.set()
        return web.Response()

    async def set_listening(self, request: web.Request) -> web.Response:
        await self._listen(is_wanted=await request.json())
        return web.Response()

    async def _listen(self, *, is_wanted: bool) -> None:
        if is_wanted and self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=4096, reuse_address=True)
            await self._site.start()
        elif not is_wanted and self._site is not None:
            site, self._site = self._site, None
            await site.stop()

    async def _answer(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        behaviour = choose_behaviour(self._behaviours, asked.question)
        await asyncio.sleep(behaviour.delay_seconds)
        if behaviour.hold:
            await asked.released.wait()
        if behaviour.cut:
            self._note_end(asked, "cut", None, Decimal(0))
            return cut(request)
        if behaviour.status != 200:
            self._note_end(asked, "refused", behaviour.status, Decimal(0))
            error = dict(behaviour.error) or build_error(behaviour.status)
            return web.json_response({"error": error}, status=behaviour.status, headers=dict(behaviour.headers))
        return await self._give(request, asked, behaviour)

    async def _give(self, request: web.Request, asked: Asked, behaviour: Behaviour) -> web.StreamResponse:
        body = json.dumps(build_answer(asked.question)).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **behaviour.headers}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        asked.has_begun = True
        self._note("began", asked)
        if behaviour.hold_after_half:
            await asked.released.wait()
        await response.write(body[len(body) // 2 :])
        await response.write_eof()
        self._note_end(asked, "answered", 200, build_bill(asked.question))
        return response

    def _note_arrival(self, question: str) -> Asked:
        self._count += 1
        asked = self._open[self._count] = Asked(self._count, question)
        self._note("arrived", asked, question=question)
        return asked

    def _note_end(self, asked: Asked, ending: str, status: int | None, bill_usd: Decimal) -> None:
        self._note(ending, asked, status=status, bill_usd=str(bill_usd))

    def _note(self, event: str, asked: Asked, **more: Any) -> None:
        line = {"call": asked.number, "event": event, "at": time.time(), **more}
        os.write(self._record, json.dumps(line).encode() + b"\n")


def cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def build_error(status: int) -> dict[str, Any]:
    """As OpenAI types it: what a client makes of a refusal depends on it."""
    kind = {"type": "requests", "code": "rate_limit_exceeded"} if status == 429 else {"type": "server_error"}
    return {"message": "the bench says no", **kind}


def build_answer(question: str) -> dict[str, Any]:
    """Whole, in OpenAI's dialect."""
    prompt = count_prompt_tokens(question)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "chaos-model",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"answer to {question}"}}
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": prompt + COMPLETION_TOKENS,
        },
    }


async def serve(record: Path, port: int, control_port: int) -> None:
    await Server(record, port).start(control_port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
