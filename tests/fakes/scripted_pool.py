"""A pool that does what a test tells it, one step for each request, and remembers what it was asked."""

import asyncio
from collections.abc import Sequence

from llm_pool.types import CompletionRequest, CompletionResponse
from tests.builders import build_response

Step = str | BaseException
"""A text to answer with, or what to raise."""


class ScriptedPool:
    """Follows its steps in turn, the last one for ever."""

    def __init__(self, *steps: Step, thinks_seconds: float = 0.0, is_held: bool = False) -> None:
        self.steps: Sequence[Step] = steps or ("fine",)
        self.asked: list[CompletionRequest] = []
        self.started = asyncio.Event()
        self.released = asyncio.Event()
        """While it is not set, nothing is answered."""
        if not is_held:
            self.released.set()
        self.thinking = 0
        self.most_thinking = 0
        self._thinks_seconds = thinks_seconds

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        self.asked.append(request)
        step = self.steps[min(len(self.asked), len(self.steps)) - 1]
        await self._think()
        if isinstance(step, BaseException):
            raise step
        return build_response(step)

    async def aclose(self) -> None:
        """Nothing was opened."""

    async def _think(self) -> None:
        self.thinking += 1
        self.most_thinking = max(self.most_thinking, self.thinking)
        self.started.set()
        try:
            await self.released.wait()
            await asyncio.sleep(self._thinks_seconds)
        finally:
            self.thinking -= 1
