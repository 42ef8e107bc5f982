"""Who declares the jobs' queue first, and as what: RabbitMQ never lets it become another kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from amqp.exceptions import PreconditionFailed
from celery import Celery
from kombu import Connection, Consumer, pools
from structlog.testing import capture_logs

from orchestrator.celery_app import JOBS_QUEUE
from orchestrator.rabbitmq_queue import QuorumQueue
from tests.acceptance.rabbitmq import QUORUM_BY_DEFAULT, RabbitMQ
from tests.acceptance.yard import build_message

pytestmark = pytest.mark.long

PLAIN: dict[str, str] = {}
KNOWING = {"task_default_queue_type": "quorum"}


def send(url: str, changes: dict[str, str]) -> None:
    """As a foreign program does that was just started."""
    pools.reset()
    Celery(broker=url, changes=changes).send_task("handle_message", [build_message("hello")])


@contextmanager
def worker_channel(url: str) -> Iterator[Any]:
    """With the queue declared, as a worker does when it starts: first the limit, then the queue."""
    with Connection(url) as connection:
        channel = connection.default_channel
        channel.basic_qos(0, 1, False)
        QuorumQueue(JOBS_QUEUE)(channel).declare()
        yield channel


def count_delivered(channel: Any) -> int:
    delivered: list[Any] = []
    with Consumer(channel, [QuorumQueue(JOBS_QUEUE)], on_message=delivered.append, auto_declare=False):
        while True:
            try:
                channel.connection.drain_events(timeout=0.3)
            except TimeoutError:
                return len(delivered)


def test_a_queue_of_another_kind_is_taken_as_it_is_and_said_so(rabbitmq: RabbitMQ) -> None:
    send(rabbitmq.url, PLAIN)
    send(rabbitmq.url, PLAIN)
    with capture_logs() as events, worker_channel(rabbitmq.url) as channel:
        assert channel.queue_declare(JOBS_QUEUE, passive=True).message_count == 2
        assert count_delivered(channel) == 1, "the worker's limit was lost"
    assert [(event["event"], event["queue"]) for event in events] == [("queue_is_not_quorum", JOBS_QUEUE)]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_producer_that_names_the_kind_comes_before_or_after_a_worker(rabbitmq: RabbitMQ, is_first: bool) -> None:
    if is_first:
        send(rabbitmq.url, KNOWING)
    with capture_logs() as events, worker_channel(rabbitmq.url):
        send(rabbitmq.url, KNOWING)
    assert events == []


@pytest.mark.parametrize("is_first", [True, False])
def test_where_quorum_is_the_default_a_producer_needs_nothing(rabbitmq: RabbitMQ, is_first: bool) -> None:
    url = rabbitmq.url_of(QUORUM_BY_DEFAULT)
    if is_first:
        send(url, PLAIN)
    with capture_logs() as events, worker_channel(url):
        send(url, PLAIN)
    assert events == []


def test_elsewhere_a_plain_producer_that_comes_later_is_told(rabbitmq: RabbitMQ) -> None:
    with worker_channel(rabbitmq.url), pytest.raises(PreconditionFailed, match="x-queue-type"):
        send(rabbitmq.url, PLAIN)
