"""A model server as a provider would run one: OpenAI's dialect on a real socket, counting every call it is sent."""

import asyncio
import threading
from collections import Counter
from typing import Any

from aiohttp import web


class ModelServer:
    """Runs on a thread of its own. What it was asked is counted before it answers, as a provider would bill it."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """How often each user message was asked."""
        self.delay_seconds = 0.0
        self.is_down = False
        """Answers 503 to everything."""
        self.hung_up = 0
        """Calls whose socket was closed before they were answered."""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(10), "the model server did not start"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _complete(self, request: web.Request) -> web.Response:
        question = (await request.json())["messages"][-1]["content"]
        if self.is_down:
            return web.json_response({"error": {"message": "overloaded", "type": "server_error"}}, status=503)
        self.calls[question] += 1
        try:
            await asyncio.sleep(self.delay_seconds)
        except asyncio.CancelledError:
            self.hung_up += 1
            raise
        return web.json_response(build_answer(f"answer to {question}"))


def build_answer(content: str) -> dict[str, Any]:
    """A whole answer in OpenAI's dialect."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "counting-model",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
