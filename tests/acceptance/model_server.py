"""A model server as a provider would run one: OpenAI's dialect on a real socket, counting every call it is sent."""

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from tests.acceptance.thread_server import ThreadServer


class ModelServer(ThreadServer):
    """Runs on a thread of its own. What it was asked is counted before it answers, as a provider would bill it."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """How often each user message was asked."""
        self.delay_seconds = 0.0
        self.is_held = False
        """What is asked meanwhile is answered when nobody holds it any more."""
        self.is_down = False
        """Answers 503 to everything."""
        self.most_at_once = 0
        """Calls that waited for an answer together."""
        self._waiting = 0
        self.hung_up = 0
        """Calls whose socket was closed before they were answered."""
        super().__init__()

    async def complete(self, request: web.Request) -> web.Response:
        question = (await request.json())["messages"][-1]["content"]
        if self.is_down:
            return web.json_response({"error": {"message": "overloaded", "type": "server_error"}}, status=503)
        self.calls[question] += 1
        self._waiting += 1
        self.most_at_once = max(self.most_at_once, self._waiting)
        try:
            await self._think()
        except asyncio.CancelledError:
            self.hung_up += 1
            raise
        finally:
            self._waiting -= 1
        return web.json_response(build_answer(f"answer to {question}"))

    async def _think(self) -> None:
        was_held = self.is_held
        await asyncio.sleep(self.delay_seconds)
        while was_held and self.is_held:  # noqa: ASYNC110 (another thread lets go)
            await asyncio.sleep(0.02)


def build_answer(content: str) -> dict[str, Any]:
    """A whole answer in OpenAI's dialect."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "counting-model",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
