"""Celery's pool of this program: every task is a greenlet of the process's one event loop, and needs no thread.

Celery's own parts of handling a message stay on its own thread: `on_apply` is called there, and how a task ended is
told there, so that nothing of Celery's is touched by two threads, and the loop waits for no socket of the broker's.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from celery.concurrency.base import BasePool, apply_target

from orchestrator import event_loop

AnswerT = TypeVar("AnswerT")

Ended = Callable[[], None]


class TaskPool(BasePool):  # type: ignore[misc] # Celery publishes no types
    """Any number of tasks at once; how many are taken is the consumer's to decide."""

    body_can_be_buffer = True
    # A signal handler may not wait for the loop.
    signal_safe = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hub: Any = None
        self._tasks: Counter[str] = Counter()
        self._beginning = threading.Lock()
        self._unbegun: list[Callable[[], None]] = []
        self._ended: SimpleQueue[Ended] = SimpleQueue()

    def count(self, task: str) -> int:
        """Tasks of that name in hand."""
        return self._tasks[task]

    def register_with_event_loop(self, hub: Any) -> None:
        self._hub = hub

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[Any], None] = lambda _: None,
        accept_callback: Callable[[int, float], None] | None = None,
        **_: Any,
    ) -> None:
        if accept_callback is not None:
            accept_callback(os.getpid(), monotonic())
        told: list[Any] = []
        target = partial(apply_target, target, args, kwargs, told.append)

        def tell(_: None) -> None:
            for outcome in told:
                callback(outcome)

        self.begin(args[0], target, tell)

    def begin(self, task: str, function: Callable[[], AnswerT], tell: Callable[[AnswerT], object]) -> None:
        """Run a function on the loop and tell its answer on Celery's thread; those that come together wake it once."""
        self._tasks[task] += 1
        with self._beginning:
            is_woken = bool(self._unbegun)
            self._unbegun.append(lambda: self._run(task, function, tell))
        if not is_woken:
            event_loop.current().call_soon(self._begin_all)

    def on_stop(self) -> None:
        """Wait for what is in hand; Celery's own loop is over, so what ends is told from here."""
        while self._tasks.total():
            self._ended.get()()

    def _begin_all(self) -> None:
        with self._beginning:
            runs, self._unbegun = self._unbegun, []
        for run in runs:
            event_loop.current().start(run)

    def _run(self, task: str, function: Callable[[], AnswerT], tell: Callable[[AnswerT], object]) -> None:
        """On the event loop's thread."""
        end: Ended = partial(self._forget, task)
        try:
            answer = function()
            end = partial(self._tell_end, task, tell, answer)
        finally:
            self._ended.put(end)
            if self._hub is not None:
                self._hub.call_soon(self._tell_ended)

    def _tell_ended(self) -> None:
        while not self._ended.empty():
            self._ended.get()()

    def _tell_end(self, task: str, tell: Callable[[AnswerT], object], answer: AnswerT) -> None:
        self._forget(task)
        tell(answer)

    def _forget(self, task: str) -> None:
        self._tasks[task] -= 1

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "in-hand": self._tasks.total()}
