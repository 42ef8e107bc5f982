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
        self.released = asyncio.Event()
        """While it is not set, nothing is answered."""
        if not is_held:
            self.released.set()
        self.foreign_models: frozenset[str] = frozenset()
        """Groups that run foreign code."""
        self._thinking = 0
        self._changed = asyncio.Condition()
        self._thinks_seconds = thinks_seconds

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        self.asked.append(request)
        step = self.steps[min(len(self.asked), len(self.steps)) - 1]
        await self._think()
        if isinstance(step, BaseException):
            raise step
        return build_response(step)

    def runs_foreign_code(self, model: str) -> bool:
        return model in self.foreign_models

    async def aclose(self) -> None:
        """Nothing was opened."""

    async def is_thinking(self, count: int) -> None:
        """Wait until it has so many requests in hand."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self._thinking == count)

    async def _think(self) -> None:
        async with self._changed:
            self._thinking += 1
            self._changed.notify_all()
        try:
            await self.released.wait()
            await asyncio.sleep(self._thinks_seconds)
        finally:
            self._thinking -= 1
