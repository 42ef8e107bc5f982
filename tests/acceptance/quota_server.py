"""A model server that keeps count of a quota as a provider would: when each request arrived, and what it took."""

import asyncio
import time
from collections import defaultdict

from aiohttp import web

from tests.acceptance.thread_server import ThreadServer


class QuotaServer(ThreadServer):
    """Runs on a thread of its own and speaks OpenAI's dialect. A message says how many tokens its answer takes."""

    def __init__(self, delay_seconds: float) -> None:
        self.arrivals: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        """Moment and tokens of each request, by the model it asked for."""
        self._delay_seconds = delay_seconds
        super().__init__()

    async def complete(self, request: web.Request) -> web.Response:
        arrived_at = time.monotonic()
        body = await request.json()
        tokens = int(body["messages"][-1]["content"])
        self.arrivals[body["model"]].append((arrived_at, tokens))
        await asyncio.sleep(self._delay_seconds)
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "."}}],
                "usage": {"prompt_tokens": 5, "completion_tokens": tokens - 5, "total_tokens": tokens},
            }
        )
