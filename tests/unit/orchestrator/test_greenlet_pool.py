"""Tasks are plain functions that stand aside on the one loop; Celery hears of their end on its own thread."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

import pytest

from orchestrator import event_loop
from orchestrator.greenlet_pool import TaskPool


class Hub:
    """Celery's loop as the pool knows it: does on this thread what it was told to."""

    def __init__(self) -> None:
        self._told: list[Callable[[], None]] = []
        self._has_something = threading.Event()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._told.append(callback)
        self._has_something.set()

    def turn(self) -> None:
        assert self._has_something.wait(5), "nothing ended"
        self._has_something.clear()
        while self._told:
            self._told.pop(0)()


class Ended:
    """How tasks ended, and on which thread that was told."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.threads: set[int] = set()

    def __call__(self, outcome: Any) -> None:
        self.outcomes.append(outcome)
        self.threads.add(threading.get_ident())


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def pool(hub: Hub) -> TaskPool:
    pool = TaskPool(limit=4)
    pool.register_with_event_loop(hub)
    pool.start()
    return pool


def apply(pool: TaskPool, function: Callable[[], Any], ended: Ended, name: str = "task") -> None:
    """As Celery does it: name, id and request come first."""
    pool.apply_async(lambda *_: function(), args=(name, "id", {}), callback=ended)


def turn_until(hub: Hub, condition: Callable[[], bool]) -> None:
    while not condition():
        hub.turn()


def test_a_task_runs_on_the_loops_thread_and_its_end_is_told_on_celerys(pool: TaskPool, hub: Hub) -> None:
    ended = Ended()
    apply(pool, threading.get_ident, ended)
    turn_until(hub, lambda: bool(ended.outcomes))
    assert ended.threads == {threading.get_ident()}
    assert ended.outcomes != [threading.get_ident()]
    assert pool.count("task") == 0


def test_tasks_wait_at_once_on_one_thread(pool: TaskPool, hub: Hub) -> None:
    """Each waits for all others: with a thread a task, or one after another, nobody would go on."""
    ended, here = Ended(), []

    all_here = asyncio.Event()

    async def meet() -> int:
        here.append(threading.get_ident())
        if len(here) == 300:
            all_here.set()
        await all_here.wait()
        return len(set(here))

    for _ in range(300):
        apply(pool, lambda: event_loop.run(meet()), ended)
    assert pool.count("task") == 300
    turn_until(hub, lambda: len(ended.outcomes) == 300)
    assert set(ended.outcomes) == {1}


def test_what_blocks_is_done_aside(pool: TaskPool, hub: Hub) -> None:
    ended = Ended()
    apply(pool, lambda: (event_loop.aside(threading.get_ident), threading.get_ident()), ended)
    turn_until(hub, lambda: bool(ended.outcomes))
    ((aside, on_loop),) = ended.outcomes
    assert aside != on_loop
    assert event_loop.aside(threading.get_ident) == threading.get_ident(), "elsewhere there is nobody to spare"


def test_what_the_coroutine_raises_the_task_raises(pool: TaskPool, hub: Hub) -> None:
    async def fail() -> None:
        raise KeyError("surprise")

    def task() -> str:
        with pytest.raises(KeyError, match="surprise"):
            event_loop.run(fail())
        return "caught"

    ended = Ended()
    apply(pool, task, ended)
    turn_until(hub, lambda: bool(ended.outcomes))
    assert ended.outcomes == ["caught"]


def test_a_task_that_ends_by_what_nobody_expects_is_told_of_and_no_longer_in_hand(pool: TaskPool, hub: Hub) -> None:
    def task() -> None:
        raise SystemExit(3)

    ended = Ended()
    apply(pool, task, ended)
    turn_until(hub, lambda: pool.count("task") == 0)
    (information,) = ended.outcomes
    assert isinstance(information.exception.exc.__cause__, SystemExit) or "SystemExit" in str(information)


def test_the_abandoned_are_cancelled_where_they_wait(pool: TaskPool, hub: Hub) -> None:
    ended = Ended()

    def task() -> str:
        with pytest.raises(CancelledError):
            event_loop.run(asyncio.sleep(60))
        return "abandoned"

    apply(pool, task, ended)
    time.sleep(0.1)
    loop = event_loop.current()
    loop.call_soon(loop.abandon)
    turn_until(hub, lambda: bool(ended.outcomes))
    assert ended.outcomes == ["abandoned"]


def test_the_end_waits_for_what_is_in_hand_and_tells_it(pool: TaskPool) -> None:
    ended = Ended()
    for n in range(3):
        apply(pool, partial(event_loop.run, asyncio.sleep(0.1, n)), ended)
    pool.stop()
    assert sorted(ended.outcomes) == [0, 1, 2]
    assert ended.threads == {threading.get_ident()}


def test_each_kind_of_task_is_counted_by_itself(pool: TaskPool) -> None:
    ended = Ended()
    for name in ("a", "a", "b"):
        apply(pool, lambda: event_loop.run(asyncio.sleep(0.05)), ended, name)
    assert (pool.count("a"), pool.count("b"), pool.count("c")) == (2, 1, 0)
    assert pool.info["in-hand"] == 3
    pool.stop()
    assert pool.info["in-hand"] == 0
