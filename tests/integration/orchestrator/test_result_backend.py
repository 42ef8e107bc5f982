"""Results of tasks that end together are told in one round trip, and read by whoever polls as Celery's own are."""

import asyncio
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from celery.exceptions import BackendStoreError
from celery.result import AsyncResult
from sqlalchemy.util import greenlet_spawn

from orchestrator.result_backend import ResultBackend

PATH = "orchestrator.result_backend:ResultBackend"


def open_app(url: str) -> Celery:
    app = Celery("teller")
    app.loader.override_backends = {"redis": PATH}
    app.conf.update(result_backend=url, result_expires=60, redis_socket_timeout=2, result_backend_thread_safe=True)
    return app


@pytest.fixture
def app(redis_url: str) -> Celery:
    return open_app(redis_url)


@pytest.fixture
def poller(redis_url: str) -> Iterator[Celery]:
    """A foreign program, with Celery's own backend."""
    with Celery("poller", backend=redis_url) as app:
        yield app


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def count_calls(server: redis.Redis, command: str) -> int:
    stats = server.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def tell(backend: ResultBackend, task_id: str, result: object, state: str = "SUCCESS") -> None:
    await greenlet_spawn(backend.store_result, task_id, result, state)


async def test_a_group_is_one_round_trip_each_way(app: Celery, poller: Celery, server: redis.Redis) -> None:
    backend = app.backend
    assert isinstance(backend, ResultBackend)
    before = count_calls(server, "mget")
    await asyncio.gather(*(tell(backend, f"task-{n}", {"n": n}) for n in range(50)))
    assert count_calls(server, "mget") - before == 1
    read = [AsyncResult(f"task-{n}", app=poller) for n in range(50)]
    assert [(result.state, result.result) for result in read] == [("SUCCESS", {"n": n}) for n in range(50)]
    assert 0 < server.ttl(backend.get_key_for_task("task-0")) <= 60


async def test_a_poller_that_waits_is_woken(app: Celery, poller: Celery) -> None:
    waiting = asyncio.ensure_future(asyncio.to_thread(AsyncResult("task-1", app=poller).get, timeout=10))
    await asyncio.sleep(0.3)
    async with asyncio.timeout(2):
        await tell(app.backend, "task-1", {"content": "fine"})
        assert await waiting == {"content": "fine"}


async def test_a_failure_is_read_as_one(app: Celery, poller: Celery) -> None:
    await tell(app.backend, "task-1", ValueError("no"), "FAILURE")
    with pytest.raises(ValueError, match="no"):
        AsyncResult("task-1", app=poller).get(timeout=2)


async def test_nothing_that_comes_later_undoes_a_success(app: Celery, poller: Celery) -> None:
    await tell(app.backend, "task-1", {"content": "fine"})
    await asyncio.gather(
        tell(app.backend, "task-1", ValueError("late"), "FAILURE"),
        tell(app.backend, "task-2", ValueError("x"), "FAILURE"),
    )
    assert AsyncResult("task-1", app=poller).state == "SUCCESS"
    assert AsyncResult("task-2", app=poller).state == "FAILURE"


async def test_a_redis_that_is_away_for_longer_than_it_is_tried_for(redis_url: str) -> None:
    app = open_app("redis://127.0.0.1:1/0")
    with pytest.raises(BackendStoreError):
        await tell(app.backend, "task-1", {})


def test_elsewhere_it_is_celerys_own(app: Celery, poller: Celery) -> None:
    app.backend.store_result("task-1", {"content": "fine"}, "SUCCESS")
    assert AsyncResult("task-1", app=poller).result == {"content": "fine"}
