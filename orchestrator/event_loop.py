"""One event loop a worker process, on a thread of its own, for as long as the process lives.

Celery's tasks are plain functions. Each runs its coroutine to the end here, as `asyncio.run` would, but on a loop that
stays, so that HTTP and database connections survive from job to job: a fresh loop a job was measured twelve times
slower. A task needs no thread to wait in: `start` makes it a greenlet of the loop, which stands aside while its
coroutine waits, as SQLAlchemy's own synchronous code does.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Final, ParamSpec, TypeVar

from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

AnswerT = TypeVar("AnswerT")
ArgumentsT = ParamSpec("ArgumentsT")

LONGEST_END_SECONDS: Final = 5.0
"""A cancelled coroutine that has not ended by then is left to itself."""


class LoopThread:
    """An event loop running on a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._awaited: set[Future[Any] | asyncio.Task[Any]] = set()
        self._submitting = threading.Lock()
        self._thread = threading.Thread(target=self.loop.run_forever, name="event-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, AnswerT]) -> AnswerT:
        """Run to the end and return or raise what it does; if the waiting thread is interrupted, cancel it first."""
        ended = threading.Event()
        # The coroutine runs at once: whoever abandons what is awaited must not miss one that has just begun.
        with self._submitting:
            future = self.submit(_tell_end(coroutine, ended))
            self._awaited.add(future)
        try:
            return future.result()
        except BaseException:
            # A coroutine left behind would finish inside a later job. The future itself is done once it is cancelled.
            if future.cancel():
                ended.wait(LONGEST_END_SECONDS)
            raise
        finally:
            self._awaited.discard(future)

    def start(self, function: Callable[[], None]) -> None:
        """Run a plain function on the loop; it stands aside whenever it calls `run`. Called on the loop's thread."""
        task = self.loop.create_task(greenlet_spawn(function))
        self._awaited.add(task)
        task.add_done_callback(self._awaited.discard)

    def submit(self, coroutine: Coroutine[Any, Any, AnswerT]) -> Future[AnswerT]:
        """Start it and return at once."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def abandon(self) -> int:
        """Cancel what tasks wait for, in whatever thread; returns how many. Called on the loop's thread."""
        with self._submitting:
            awaited = [future for future in tuple(self._awaited) if not future.done()]
        for future in awaited:
            future.cancel()
        return len(awaited)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call a plain function on the loop's thread."""
        self.loop.call_soon_threadsafe(callback)


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
    """Run a coroutine to its end on this process's loop: from a function started on it, or from any other thread.

    Raises:
        CancelledError: of `concurrent.futures`: the coroutine was cancelled, as when the worker ends.
    """
    if not in_greenlet():
        return current().run(coroutine)
    try:
        return await_only(coroutine)
    except asyncio.CancelledError:
        raise CancelledError from None


def aside(
    function: Callable[ArgumentsT, AnswerT], *arguments: ArgumentsT.args, **options: ArgumentsT.kwargs
) -> AnswerT:
    """Call what blocks: on another thread where this one is the loop's, so that nobody else waits for it."""
    if not in_greenlet():
        return function(*arguments, **options)
    return run(asyncio.to_thread(function, *arguments, **options))


def _forget_after_fork() -> None:
    """A thread does not survive a fork; the child starts its own loop."""
    global _current, _lock
    _lock, _current = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_after_fork)
