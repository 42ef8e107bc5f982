"""A worker takes what it has room for: single jobs first, sweeps always, slices where slots would stay empty."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import pytest
from celery import Celery
from celery.concurrency.base import BasePool
from kombu import Connection
from kombu.utils import functional

from orchestrator import event_loop
from orchestrator.beat import MAINTENANCE_QUEUE
from orchestrator.celery_app import BULK_QUEUE, JOBS_QUEUE
from orchestrator.consumer import (
    BETWEEN_SLICES_SECONDS,
    FEWEST_AT_ONCE,
    LONGEST_BETWEEN_TRIES_SECONDS,
    SWEEPS_AT_ONCE,
    Appetite,
    EvidenceConsumer,
)
from orchestrator.greenlet_pool import TaskPool
from orchestrator.liveness.pulse import STANDS_SECONDS
from orchestrator.workload import Workload

QUEUES: Final = (BULK_QUEUE, MAINTENANCE_QUEUE, JOBS_QUEUE)


@pytest.fixture
def pool() -> TaskPool:
    return TaskPool(limit=4)


@contextmanager
def in_hand(pool: TaskPool, **tasks: int) -> Iterator[None]:
    """So many tasks of each name that wait until the end."""
    release = asyncio.Event()
    for name, count in tasks.items():
        for _ in range(count):
            pool.begin(name, partial(event_loop.run, release.wait()), bool)
    yield
    event_loop.current().call_soon(release.set)
    pool.on_stop()


def find_most(pool: TaskPool, slots: int = 4, queues: tuple[str, ...] = QUEUES) -> list[tuple[str, int]]:
    return list(build_appetite(pool, slots).find_most(queues).items())


def build_appetite(pool: TaskPool, slots: int = 4, standing_seconds: float = 0.0) -> Appetite:
    return Appetite(Workload(slots), pool, lambda seconds: standing_seconds < seconds)


def test_who_is_idle_takes_jobs_then_sweeps_then_a_slice_in_whatever_order_it_is_asked(pool: TaskPool) -> None:
    taken = [(JOBS_QUEUE, 4), (MAINTENANCE_QUEUE, SWEEPS_AT_ONCE), (BULK_QUEUE, 1)]
    assert find_most(pool) == find_most(pool, queues=QUEUES[::-1]) == taken


def test_some_jobs_are_left_for_a_worker_that_is_idle(pool: TaskPool) -> None:
    assert find_most(pool, slots=100)[0] == (JOBS_QUEUE, FEWEST_AT_ONCE)
    assert find_most(TaskPool(limit=3200), slots=3200)[0] == (JOBS_QUEUE, 100)


def test_as_many_slices_are_taken_as_fill_the_slots() -> None:
    assert dict(find_most(TaskPool(limit=250), slots=250))[BULK_QUEUE] == 3


@pytest.mark.parametrize("tasks", [{"handle_message": 3}, {"run_job": 3}, {"run_job": 1, "handle_message": 2}])
def test_jobs_in_hand_take_room_however_they_came(pool: TaskPool, tasks: dict[str, int]) -> None:
    with in_hand(pool, **tasks):
        assert find_most(pool)[0] == (JOBS_QUEUE, 1)
    assert find_most(pool)[0] == (JOBS_QUEUE, 4)


def test_who_is_full_takes_sweeps_alone(pool: TaskPool) -> None:
    appetite = build_appetite(pool)
    with in_hand(pool, handle_message=4):
        assert list(appetite.find_most(QUEUES).items()) == [(MAINTENANCE_QUEUE, SWEEPS_AT_ONCE)]
        assert not appetite.has_room()
    assert appetite.has_room()


def test_who_stands_still_takes_nothing_whatever_its_room(pool: TaskPool) -> None:
    appetite = build_appetite(pool, standing_seconds=STANDS_SECONDS)
    assert (appetite.find_most(QUEUES), appetite.has_room()) == ({}, False)


def test_sweeps_take_no_room(pool: TaskPool) -> None:
    with in_hand(pool, sweep=9):
        assert find_most(pool)[0] == (JOBS_QUEUE, 4)


def test_a_slice_that_has_not_begun_keeps_a_second_one_out_and_single_jobs_not(pool: TaskPool) -> None:
    with in_hand(pool, run_slice=1):
        assert dict(find_most(pool)) == {JOBS_QUEUE: 4, MAINTENANCE_QUEUE: SWEEPS_AT_ONCE}


def test_who_has_a_slice_looks_for_the_next_soon(pool: TaskPool) -> None:
    appetite = build_appetite(pool)
    assert appetite.find_wait_seconds() is None
    with in_hand(pool, run_slice=1):
        assert appetite.find_wait_seconds() == BETWEEN_SLICES_SECONDS


@pytest.mark.parametrize(("queue", "most"), [(JOBS_QUEUE, 4), (MAINTENANCE_QUEUE, SWEEPS_AT_ONCE), (BULK_QUEUE, 1)])
def test_only_queues_that_are_consumed_are_asked_for(pool: TaskPool, queue: str, most: int) -> None:
    assert find_most(pool, queues=(queue,)) == [(queue, most)]


def test_a_worker_given_another_pool_refuses_in_one_sentence() -> None:
    app = Celery("another-pool", broker="memory://", set_as_current=False)
    worker = SimpleNamespace(use_eventloop=True)
    with pytest.raises(SystemExit, match=r"^llmyard: .*without --pool\.$"):
        EvidenceConsumer(print, pool=BasePool(), app=app, hostname="worker@test", controller=worker)


def test_a_broker_that_was_away_for_minutes_is_missed_for_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's own consumer waits 30 s between its later tries."""
    monkeypatch.setattr(functional, "sleep", lambda _: None)
    consumer = EvidenceConsumer.__new__(EvidenceConsumer)
    consumer.app = Celery("away", set_as_current=False, broker_connection_retry_on_startup=True)
    consumer.first_connection_attempt = True
    consumer.broker_connection_retry_attempt = 0
    waits: list[float] = []
    broker = Connection("redis://127.0.0.1:1")
    tell = broker.ensure_connection

    def listen(on_error: Callable[[Exception, float], None], *arguments: Any, **options: Any) -> Connection:
        def note(error: Exception, seconds: float) -> None:
            waits.append(seconds)
            on_error(error, seconds)
            if len(waits) == 40:
                raise KeyboardInterrupt

        return tell(note, *arguments, **options)

    broker.ensure_connection = listen
    with pytest.raises(KeyboardInterrupt):
        consumer.ensure_connected(broker)
    assert max(waits) == LONGEST_BETWEEN_TRIES_SECONDS
