"""What sends to the broker, on either one: nothing that becomes of a broker breaks or holds up who sends."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from kombu import Connection, Queue
from structlog.testing import capture_logs

from orchestrator.celery_app import JOBS_QUEUE, RABBITMQ, REDIS, app
from orchestrator.dispatch import (
    CANCEL_COMMAND,
    SEND_SECONDS,
    broadcast_cancel,
    dispatch,
    is_broker_reachable,
    read_backlog,
    tell_revoked,
    tell_success,
)
from orchestrator.jobs.sweeps import Waiting
from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.embedded_valkey import prepare_valkey
from orchestrator.stack.supervisor import Supervisor
from tests.acceptance.rabbitmq import RabbitMQ
from tests.fakes.redis_gate import open_redis_gate

pytestmark = pytest.mark.long

SECONDS = 0.3
"""For the answer of a broker."""


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Celery's application on an empty broker of either kind."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    url = redis_url if request.param == "redis" else request.getfixturevalue("rabbitmq").url
    with celery_on(url, redis_url):
        yield url


@contextmanager
def celery_on(broker_url: str, result_url: str) -> Iterator[None]:
    kind = RABBITMQ if broker_url.startswith("amqp") else REDIS
    changes = {"broker_transport_options": {}, **kind, "broker_url": broker_url, "result_backend": result_url}
    before = {name: app.conf[name] for name in changes}
    configure(changes)
    yield
    configure(before)


def configure(changes: dict[str, Any]) -> None:
    app.conf.update(changes)
    # All that it keeps of a broker and its queues, and of its results.
    vars(app).pop("amqp", None)
    app._after_fork()
    app._backend_cache = None


def build_jobs(count: int) -> list[Waiting]:
    return [Waiting(uuid4(), "default", str(uuid4())) for _ in range(count)]


def take(url: str) -> Any:
    """A message, as a worker has it in hand."""
    connection = Connection(url)
    return Queue(JOBS_QUEUE)(connection.default_channel).get()


def test_the_backlog_is_what_no_worker_has_taken(broker_url: str) -> None:
    assert read_backlog(SECONDS) == 0, "there is no queue yet"
    dispatch(build_jobs(5))
    assert read_backlog(SECONDS) == 5
    message = take(broker_url)
    assert read_backlog(SECONDS) == 4, "one is in hand"
    message.ack()
    assert read_backlog(SECONDS) == 4


def test_jobs_of_many_threads_all_arrive(broker_url: str) -> None:
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(dispatch, [build_jobs(3) for _ in range(40)]))
    assert read_backlog(SECONDS) == 120


def test_workers_hear_of_cancelled_jobs(broker_url: str) -> None:
    heard: list[list[str]] = []
    job_ids = [uuid4() for _ in range(200)]
    with Connection(broker_url) as connection:
        node = app.control.mailbox(connection).Node("w@test", channel=connection.default_channel)
        node.handlers[CANCEL_COMMAND] = lambda _, job_ids: heard.append(job_ids)
        node.listen()
        with suppress(TimeoutError):
            # Redis: whoever is not in yet misses it.
            connection.drain_events(timeout=0.1)
        broadcast_cancel(job_ids)
        connection.drain_events(timeout=5)
    assert heard == [[str(job_id) for job_id in job_ids]]


async def test_a_broker_that_is_gone_costs_no_time_and_comes_back(broker_url: str) -> None:
    async with open_redis_gate(broker_url) as gate:
        with celery_on(gate.url, app.conf.result_backend), capture_logs() as events:
            await asyncio.to_thread(dispatch, build_jobs(1))
            await gate.shut()
            started_at = time.monotonic()
            await asyncio.to_thread(dispatch, build_jobs(7))
            await asyncio.to_thread(broadcast_cancel, [uuid4()])
            assert await asyncio.to_thread(read_backlog, SECONDS) is None
            assert not await asyncio.to_thread(is_broker_reachable, SECONDS)
            assert time.monotonic() - started_at < 1
            await gate.open()
            await asyncio.to_thread(dispatch, build_jobs(1))
            assert await asyncio.to_thread(read_backlog, SECONDS) == 2
    assert [(event["event"], event["jobs"]) for event in events] == [("dispatch_failed", 7), ("cancel_not_told", 1)]


async def test_a_broker_gone_silent_holds_nobody_up_for_long(broker_url: str) -> None:
    async with open_redis_gate(broker_url) as gate:
        with celery_on(gate.url, app.conf.result_backend), capture_logs() as events:
            await asyncio.to_thread(read_backlog, SECONDS)
            gate.hold_up()
            started_at = time.monotonic()
            assert await asyncio.to_thread(read_backlog, SECONDS) is None
            assert not await asyncio.to_thread(is_broker_reachable, SECONDS)
            assert time.monotonic() - started_at < 1.5
            await asyncio.to_thread(dispatch, build_jobs(200))
            assert time.monotonic() - started_at < 1.5 + 2 * SEND_SECONDS
    assert [(event["event"], event["jobs"]) for event in events] == [("dispatch_failed", 200)]


def test_a_queue_that_was_deleted_is_there_again_when_it_is_needed(rabbitmq: RabbitMQ, redis_url: str) -> None:
    """RabbitMQ drops what finds no queue, and confirms it."""
    with celery_on(rabbitmq.url, redis_url):
        dispatch(build_jobs(1))
        rabbitmq.clear()
        dispatch(build_jobs(3))
        assert read_backlog(SECONDS) == 3


def test_what_rabbitmq_refuses_is_not_taken_for_sent(rabbitmq: RabbitMQ, redis_url: str) -> None:
    """As it does when it is short of memory or disk; unconfirmed, the second message would vanish without a word."""
    full = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    with Connection(rabbitmq.url) as connection:
        Queue(JOBS_QUEUE, queue_arguments=full)(connection.default_channel).queue_declare()
    with celery_on(rabbitmq.url, redis_url), capture_logs() as events:
        for _ in range(3):
            dispatch(build_jobs(1))
    failed = [event for event in events if event["event"] == "dispatch_failed"]
    assert {event["error"] for event in failed} == {"MessageNacked: "}


def test_a_redis_that_is_full_is_no_error_of_who_submits(tmp_path: Path, redis_url: str) -> None:
    supervisor, valkey = Supervisor(make_data_directory(tmp_path), say=print), prepare_valkey(tmp_path / "valkey")
    supervisor.start(valkey.child())
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory", 1)
    with celery_on(valkey.url, redis_url), capture_logs() as events:
        dispatch(build_jobs(2))
        broadcast_cancel([uuid4()])
    supervisor.stop()
    assert [event["event"] for event in events][:1] == ["dispatch_failed"]


def test_whoever_waits_for_a_cancelled_task_is_told_so(broker_url: str) -> None:
    tell_revoked(["task-1", "task-2"], "cancelled by its user")
    for task_id in ("task-1", "task-2"):
        with pytest.raises(TaskRevokedError, match="cancelled by its user"):
            AsyncResult(task_id, app=app).get(timeout=5)


def test_results_that_cannot_be_told_are_given_up_together(broker_url: str) -> None:
    started_at = time.monotonic()
    with celery_on(broker_url, "redis://127.0.0.1:1/0"), capture_logs() as events:
        tell_success([f"task-{n}" for n in range(100)], {})
    assert time.monotonic() - started_at < 8
    (event,) = events
    assert (event["event"], len(event["task_ids"])) == ("result_not_told", 100)
