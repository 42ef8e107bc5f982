"""Cancels a task where it waits for the so-and-so-many-th time: before, during or after what it waits for there."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Generic, Literal, TypeVar

ResultT = TypeVar("ResultT")

When = Literal["at once", "soon", "too late"]
"""Before anything it started got anywhere; some steps of the loop later; or when what it waits for has come, and the
task has not heard of it yet: its result is then lost on the way.
"""
SOON_STEPS = 4


class Cancelling(Generic[ResultT], Awaitable[ResultT]):
    """Awaits `work`, and calls `cancel` at its wait number `at`."""

    def __init__(self, work: Awaitable[ResultT], at: int, when: When, cancel: Callable[[], object]) -> None:
        self.waits = 0
        self._work = work
        self._at = at
        self._when = when
        self._cancel = cancel

    def __await__(self) -> Generator[Any, Any, ResultT]:
        steps = self._work.__await__()
        resume: Callable[[], Any] = lambda: next(steps)  # noqa: E731 - it changes with what the last wait brought
        while True:
            try:
                waited_for = resume()
            except StopIteration as end:
                return end.value
            self.waits += 1
            if self.waits == self._at:
                self._plan(waited_for)
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001 - handed on as it is
                resume = lambda error=error: steps.throw(error)  # noqa: E731 - as above
            else:
                resume = lambda: next(steps)  # noqa: E731 - as above

    def _plan(self, waited_for: asyncio.Future[Any] | None) -> None:
        if waited_for is None or self._when == "at once":
            self._cancel()
        elif self._when == "too late":
            waited_for.add_done_callback(lambda _: self._cancel())
        else:
            self._cancel_after(SOON_STEPS)

    def _cancel_after(self, steps: int) -> None:
        if steps:
            asyncio.get_running_loop().call_soon(self._cancel_after, steps - 1)
        else:
            self._cancel()


async def run_cancelling(work: Awaitable[object], at: int, when: When) -> bool:
    """Whether it came to that wait. Errors of the work's own go through."""
    cancelling = Cancelling(work, at, when, lambda: task.cancel())
    task = asyncio.create_task(_await(cancelling))
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome
    return cancelling.waits >= at


@contextmanager
def cancelling_within(name: str, at: int, when: When, cancel: Callable[[], object]) -> Generator[list[int]]:
    """`cancel` is called when a task made meanwhile from the coroutine `name` comes to that wait. Gives the waits."""
    loop = asyncio.get_running_loop()
    waits: list[int] = []

    def make(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        if work.__qualname__ == name:
            work = _count(Cancelling(work, at, when, cancel), waits)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield waits
    finally:
        loop.set_task_factory(None)


async def _await(work: Awaitable[ResultT]) -> ResultT:
    return await work


async def _count(cancelling: Cancelling[ResultT], waits: list[int]) -> ResultT:
    try:
        return await cancelling
    finally:
        waits.append(cancelling.waits)
