"""Steps at a server that go on to their end, whoever of those that wait for them is cancelled meanwhile.

A command that is cut off costs its connection, and may have been run all the same: what it took for a caller who is
gone, nobody else would give back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

Undo = Callable[[ResultT], Awaitable[object]]
"""Gives back what a step brought; bears a server that is away."""


class Finishing:
    """The steps of one store that are under way."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    def start(self, step: Coroutine[Any, Any, ResultT]) -> asyncio.Task[ResultT]:
        task = asyncio.create_task(step)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def wait_for(self, step: Coroutine[Any, Any, ResultT], undo: Undo[ResultT] | None = None) -> ResultT:
        """Its result. `undo` takes it where the caller was cancelled: nobody is there any more to use it."""
        task = self.start(step)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if undo is not None:
                self.start(_undo(task, undo))
            raise

    async def aclose(self) -> None:
        """What is on its way arrives first, and what is undone after it."""
        while self._under_way:
            await asyncio.wait(self._under_way)


async def _undo(task: asyncio.Task[ResultT], undo: Undo[ResultT]) -> None:
    """Not before the step has ended: what gives back would overtake what takes."""
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await undo(task.result())
