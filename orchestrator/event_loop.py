"""One event loop a worker process, on a thread of its own, for as long as the process lives.

Celery's tasks are plain functions. Each runs its coroutine to the end here, as `asyncio.run` would, but on a loop that
stays, so that HTTP and database connections survive from job to job: a fresh loop a job was measured twelve times
slower.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

AnswerT = TypeVar("AnswerT")

LONGEST_END_SECONDS: Final = 5.0
"""A cancelled coroutine that has not ended by then is left to itself."""


class LoopThread:
    """An event loop running on a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="event-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, AnswerT]) -> AnswerT:
        """Run to the end and return or raise what it does; if the waiting thread is interrupted, cancel it first."""
        ended = threading.Event()
        future = self.submit(_tell_end(coroutine, ended))
        try:
            return future.result()
        except BaseException:
            # A coroutine left behind would finish inside a later job. The future itself is done once it is cancelled.
            if future.cancel():
                ended.wait(LONGEST_END_SECONDS)
            raise

    def submit(self, coroutine: Coroutine[Any, Any, AnswerT]) -> Future[AnswerT]:
        """Start it and return at once."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, callback: Any) -> None:
        """Call a plain function on the loop's thread."""
        self._loop.call_soon_threadsafe(callback)


async def _tell_end(coroutine: Coroutine[Any, Any, AnswerT], ended: threading.Event) -> AnswerT:
    try:
        return await coroutine
    finally:
        ended.set()


_lock = threading.Lock()
_current: LoopThread | None = None


def current() -> LoopThread:
    """This process's loop, started at first use: never before a fork."""
    global _current
    with _lock:
        if _current is None:
            _current = LoopThread()
        return _current


def run(coroutine: Coroutine[Any, Any, AnswerT]) -> AnswerT:
    """Run a coroutine to its end on this process's loop, from any other thread."""
    return current().run(coroutine)


def _forget_after_fork() -> None:
    """A thread does not survive a fork; the child starts its own loop."""
    global _current, _lock
    _lock, _current = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_after_fork)
