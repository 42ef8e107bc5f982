"""A message in a living worker's hands does not come back; one in a dead worker's does."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Producer, Queue

from orchestrator.redis_transport import Transport

QUEUES = [Queue("celery")]
VISIBLE_AFTER = {"visibility_timeout": 10}


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@contextmanager
def open_channel(url: str) -> Iterator[Any]:
    path = f"{Transport.__module__}:Transport"
    connection = Connection(url, transport=path, transport_options=VISIBLE_AFTER)
    channel: Any = connection.channel()
    yield channel
    channel.qos.restore_at_shutdown = False
    connection.release()


def look(channel: Any, broker: redis.Redis) -> int:
    """Let it look for messages of dead workers, as every worker does each second; returns how many wait after that."""
    broker.delete("unacked_mutex")
    channel.qos.restore_visible(interval=1)
    return broker.llen("celery")


def grow_old(broker: redis.Redis) -> None:
    """As if the visibility timeout had passed since anybody said anything."""
    for tag, _ in broker.zrange("unacked_index", 0, -1, withscores=True):
        broker.zadd("unacked_index", {tag: 1.0})


def test_only_who_died_gives_back(redis_url: str, broker: redis.Redis) -> None:
    taken: list[Any] = []
    with ExitStack() as channels:
        first, second = (channels.enter_context(open_channel(redis_url)) for _ in range(2))
        consumer = Consumer(first, QUEUES, on_message=taken.append, accept=["json"])
        consumer.consume()
        Producer(first).publish("hello", routing_key="celery", declare=QUEUES)
        first.connection.client.drain_events(timeout=5)
        assert len(taken) == 1

        grow_old(broker)
        assert look(first, broker) == 0, "it came back to its own living worker"
        assert look(second, broker) == 0, "it came back though its worker had said that it lives"
        grow_old(broker)
        assert look(second, broker) == 1, "its worker said nothing any more"


def test_who_does_not_work_on_what_it_has_gives_it_back(redis_url: str, broker: redis.Redis) -> None:
    """Its thread that looks for messages goes on all the same."""
    taken: list[Any] = []
    with open_channel(redis_url) as channel:
        Consumer(channel, QUEUES, on_message=taken.append, accept=["json"]).consume()
        Producer(channel).publish("hello", routing_key="celery", declare=QUEUES)
        channel.connection.client.drain_events(timeout=5)
        channel.works_on_what_it_has = lambda: False
        assert look(channel, broker) == 0, "not at once"
        grow_old(broker)
        assert look(channel, broker) == 1


def test_what_is_acknowledged_is_not_kept_alive(redis_url: str, broker: redis.Redis) -> None:
    taken: list[Any] = []
    with open_channel(redis_url) as channel:
        Consumer(channel, QUEUES, on_message=taken.append, accept=["json"]).consume()
        Producer(channel).publish("hello", routing_key="celery", declare=QUEUES)
        channel.connection.client.drain_events(timeout=5)
        taken[0].ack()
        look(channel, broker)
        assert broker.zcard("unacked_index") == 0
