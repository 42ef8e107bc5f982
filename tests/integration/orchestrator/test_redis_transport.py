"""The broker's side of a worker: nothing it has taken is lost with it."""

import json
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Producer, Queue

from orchestrator import redis_transport
from orchestrator.beat import MAINTENANCE_QUEUE
from orchestrator.celery_app import BULK_QUEUE
from orchestrator.garbled import GARBLED_CONTENT_TYPE

redis_transport.install()

OURS = "orchestrator.redis_transport:Transport"
KOMBUS = "kombu.transport.redis:Transport"
QUEUES = [Queue("celery"), Queue(MAINTENANCE_QUEUE)]


class Worker:
    """As much of a worker as talks to the broker."""

    def __init__(self, url: str, transport: str) -> None:
        self.connection = Connection(url, transport=transport)
        self.channel: Any = self.connection.channel()
        self.taken: list[Any] = []
        self.consumer = Consumer(self.channel, QUEUES, on_message=self.taken.append, accept=["json"])
        self.consumer.consume()
        # Every worker has what waits for messages of dead ones; here only the tests decide when.
        self.restore_visible = self.channel.qos.restore_visible
        self.channel.qos.restore_visible = lambda *_, **__: None

    def poll(self) -> None:
        """Send the next command, and wait until its reply can be read."""
        self.channel.connection.cycle.on_poll_start()
        readable, _, _ = select.select([self.channel.client.connection._sock], [], [], 5)
        assert readable, "no reply"

    def read(self) -> None:
        try:
            self.channel._brpop_read()
        except Empty:
            return

    def take(self, count: int) -> list[Any]:
        deadline = time.monotonic() + 10
        while len(self.taken) < count:
            assert time.monotonic() < deadline, f"{len(self.taken)} of {count}"
            self.poll()
            self.read()
        return self.taken

    def die(self) -> None:
        """As by a kill: what lies unread in the socket is gone, and nothing is given back."""
        self.channel.client.connection.disconnect()


@contextmanager
def work(url: str, transport: str = OURS) -> Iterator[Worker]:
    worker = Worker(url, transport)
    yield worker
    worker.channel.qos.restore_at_shutdown = False
    worker.connection.release()


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def send(url: str, *bodies: Any, queue: str = "celery", **options: Any) -> None:
    with Connection(url) as connection:
        producer = Producer(connection.default_channel)
        for body in bodies:
            producer.publish(body, routing_key=queue, serializer="json", **options)


@pytest.mark.parametrize(("transport", "kept"), [(OURS, 1), (KOMBUS, 0)])
def test_a_message_is_recorded_with_its_taking_which_kombu_alone_does_not_do(
    redis_url: str, broker: redis.Redis, transport: str, kept: int
) -> None:
    with work(redis_url, transport) as worker:
        send(redis_url, "hello")
        worker.poll()
        worker.die()
        assert broker.llen("celery") == 0
        assert (broker.hlen("unacked"), broker.zcard("unacked_index")) == (kept, kept)


def test_what_a_dead_worker_had_taken_comes_back_as_it_was(redis_url: str, broker: redis.Redis) -> None:
    with work(redis_url) as dead:
        send(redis_url, {"n": 1})
        dead.poll()
        dead.die()
        (tag,) = broker.hkeys("unacked")
        dead.channel.qos.restore_by_tag(tag.decode())
    with work(redis_url) as worker:
        (message,) = worker.take(1)
        assert message.payload == {"n": 1}
        message.ack()
        assert (broker.hlen("unacked"), broker.zcard("unacked_index"), broker.llen("celery")) == (0, 0, 0)


def count_calls(broker: redis.Redis, command: str) -> int:
    return int(broker.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def test_messages_of_dead_workers_are_looked_for_where_the_server_says_that_there_are_some(
    redis_url: str, broker: redis.Redis
) -> None:
    with work(redis_url) as dead:
        send(redis_url, "hello")
        dead.poll()
        dead.die()
    with work(redis_url) as worker:
        worker.poll()
        worker.read()
        before = count_calls(broker, "set")
        worker.restore_visible()
        assert count_calls(broker, "set") == before, "whoever has it may still live: there is no need for the mutex"
        (tag,) = broker.hkeys("unacked")
        broker.zadd("unacked_index", {tag: time.time() - worker.channel.visibility_timeout - 1})
        worker.channel.qos.restore_visible = worker.restore_visible
        worker.channel._is_waiting = False
        worker.poll()
        worker.read()
        assert (broker.llen("celery"), broker.hlen("unacked")) == (1, 0)


def test_only_what_is_still_in_hand_is_said_to_be(redis_url: str, broker: redis.Redis) -> None:
    with work(redis_url) as worker:
        send(redis_url, "hello")
        (message,) = worker.take(1)
        before = count_calls(broker, "zadd")
        worker.restore_visible()
        assert count_calls(broker, "zadd") == before + 1
        message.ack()
        worker.restore_visible()
        assert count_calls(broker, "zadd") == before + 1


def test_messages_come_in_the_order_they_were_sent(redis_url: str) -> None:
    with work(redis_url) as worker:
        send(redis_url, *range(20))
        assert [message.payload for message in worker.take(20)] == list(range(20))


def test_a_waiting_worker_gets_a_message_at_once(redis_url: str) -> None:
    with work(redis_url) as worker:
        worker.poll()
        worker.read()
        worker.channel.connection.cycle.on_poll_start()
        started_at = time.monotonic()
        send(redis_url, "hello")
        (message,) = worker.take(1)
        assert message.payload == "hello"
        assert time.monotonic() - started_at < 0.5, "it waited for its timeout"


@pytest.mark.parametrize("options", [{"queue": MAINTENANCE_QUEUE}, {"priority": 5}])
def test_other_lists_are_looked_at_every_second(redis_url: str, options: dict[str, Any]) -> None:
    with work(redis_url) as worker:
        worker.poll()
        worker.read()
        send(redis_url, "hello", **options)
        assert [message.payload for message in worker.take(1)] == ["hello"]


def test_waiting_leaves_the_list_as_it_is(redis_url: str, broker: redis.Redis) -> None:
    with work(redis_url) as waiting:
        waiting.poll()
        waiting.read()
        send(redis_url, 1, 2)
        before = broker.lrange("celery", 0, -1)
        waiting.poll()
        waiting.die()
        assert broker.lrange("celery", 0, -1) == before
        assert broker.hlen("unacked") == 0


ENVELOPE: dict[str, Any] = {
    "body": "W10=",
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {},
    "properties": {
        "body_encoding": "base64",
        "delivery_tag": "tag-1",
        "delivery_info": {"exchange": "", "routing_key": "celery"},
    },
}
GARBLED_BUT_RECORDED = {
    "body": {**ENVELOPE, "body": "abc"},
    "headers": {**ENVELOPE, "headers": []},
    "a conversion that fails": {**ENVELOPE, "x": {"__type__": "uuid", "__value__": 5}},
}


@pytest.mark.parametrize("entry", GARBLED_BUT_RECORDED.values(), ids=GARBLED_BUT_RECORDED)
def test_garbage_that_was_recorded_does_not_come_back_for_ever(
    redis_url: str, broker: redis.Redis, entry: dict[str, Any]
) -> None:
    with work(redis_url) as worker:
        broker.lpush("celery", json.dumps(entry))
        (message,) = worker.take(1)
        assert message.content_type == GARBLED_CONTENT_TYPE
        message.ack()
        assert (broker.hlen("unacked"), broker.zcard("unacked_index")) == (0, 0)


@pytest.mark.parametrize("entry", ["not json", "[1, 2]", "[" * 5_000, '{"properties": {"delivery_tag": 7}}', "\x00"])
def test_garbage_is_handed_out_as_a_message_nobody_can_decode(redis_url: str, broker: redis.Redis, entry: str) -> None:
    with work(redis_url) as worker:
        broker.lpush("celery", entry)
        (message,) = worker.take(1)
        assert message.content_type == GARBLED_CONTENT_TYPE


def test_every_answer_of_the_server_is_told_with_the_queues_that_were_asked(redis_url: str, broker: object) -> None:
    told: list[set[str]] = []
    with work(redis_url) as worker:
        worker.channel.on_poll = lambda queues: told.append(set(queues))
        worker.poll()
        assert told == [], "asked is not answered"
        worker.read()
        assert told == [{"celery", MAINTENANCE_QUEUE}]
        send(redis_url, "hello")
        worker.take(1)
        assert len(told) == 2
        worker.consumer.cancel_by_queue("celery")
        worker.poll()
        worker.read()
        assert told[-1] == {MAINTENANCE_QUEUE}


class Appetite:
    """As a worker with room for so many."""

    wait_seconds: float | None = None

    def __init__(self, **most: int) -> None:
        self.most = most

    def find_most(self, queues: Sequence[str]) -> Mapping[str, int]:
        return {queue: count for queue, count in self.most.items() if queue in queues and count}

    def has_room(self) -> bool:
        return self.most.get("celery", 0) > 0

    def find_wait_seconds(self) -> float | None:
        return self.wait_seconds


@contextmanager
def work_with(url: str, appetite: Appetite) -> Iterator[Worker]:
    with work(url) as worker:
        worker.consumer.add_queue(Queue(BULK_QUEUE))
        worker.consumer.consume()
        worker.channel.appetite = appetite
        yield worker


def test_who_waited_in_vain_waits_on_until_there_is_room_for_more(
    redis_url: str, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    appetite = Appetite(celery=1)
    appetite.wait_seconds = 0.02
    with work_with(redis_url, appetite) as worker:
        before = count_calls(broker, "eval")
        for _ in range(5):
            worker.poll()
            worker.read()
        assert count_calls(broker, "eval") == before + 1
        appetite.most = {"celery": 1, "bulk": 1}
        worker.poll()
        worker.read()
        assert count_calls(broker, "eval") == before + 2
        monkeypatch.setattr(redis_transport, "LOOK_SECONDS", 0.0)
        for _ in range(2):
            worker.poll()
            worker.read()
        assert count_calls(broker, "eval") == before + 3


def test_as_many_as_there_is_room_for_come_in_one_round_trip(redis_url: str, broker: redis.Redis) -> None:
    with work_with(redis_url, Appetite(celery=3, maintenance=2, bulk=1)) as worker:
        send(redis_url, *range(5))
        send(redis_url, "sweep", queue=MAINTENANCE_QUEUE)
        send(redis_url, "slice", "slice", queue=BULK_QUEUE)
        worker.poll()
        worker.read()
        assert [message.payload for message in worker.taken] == [0, 1, 2, "sweep", "slice"]
        assert (broker.hlen("unacked"), broker.zcard("unacked_index")) == (5, 5)
        assert (broker.llen("celery"), broker.llen(BULK_QUEUE)) == (2, 1)


def test_all_that_was_taken_and_not_read_comes_back(redis_url: str, broker: redis.Redis) -> None:
    with work_with(redis_url, Appetite(celery=3)) as dead:
        send(redis_url, *range(3))
        dead.poll()
        dead.die()
        assert (broker.llen("celery"), broker.hlen("unacked")) == (0, 3)
        for tag in broker.hkeys("unacked"):
            dead.channel.qos.restore_by_tag(tag.decode())
    with work(redis_url) as worker:
        assert sorted(message.payload for message in worker.take(3)) == [0, 1, 2]


def test_without_room_for_a_job_it_asks_only_now_and_then_for_what_takes_none(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_transport, "LOOK_SECONDS", 0.3)
    with work_with(redis_url, Appetite(maintenance=2)) as worker:
        worker.poll()
        worker.read()
        assert not worker.channel.qos.can_consume()
        send(redis_url, "job")
        send(redis_url, "sweep", queue=MAINTENANCE_QUEUE)
        time.sleep(0.35)
        assert worker.channel.qos.can_consume()
        worker.poll()
        worker.read()
        assert [message.payload for message in worker.taken] == ["sweep"]


def test_what_is_acknowledged_in_one_turn_is_told_in_one_round_trip(redis_url: str, broker: redis.Redis) -> None:
    with work_with(redis_url, Appetite(celery=10)) as worker:
        worker.channel.connection.flushes_at_each_turn = True
        send(redis_url, *range(10))
        for message in worker.take(10):
            message.ack()
        assert broker.hlen("unacked") == 10, "told before the turn's end"
        calls = (
            broker.info("commandstats")["cmdstat_hdel"]["calls"] if "cmdstat_hdel" in broker.info("commandstats") else 0
        )
        worker.channel.qos.flush()
        assert (broker.hlen("unacked"), broker.zcard("unacked_index")) == (0, 0)
        assert broker.info("commandstats")["cmdstat_hdel"]["calls"] == calls + 1


def test_what_was_acknowledged_is_told_before_the_rest_is_given_back(redis_url: str, broker: redis.Redis) -> None:
    with work_with(redis_url, Appetite(celery=2)) as worker:
        worker.channel.connection.flushes_at_each_turn = True
        send(redis_url, "done", "undone")
        done, _ = worker.take(2)
        done.ack()
        worker.channel.qos.restore_unacked_once()
        assert broker.llen("celery") == 1
        assert broker.hlen("unacked") == 0


def test_one_client_serves_all_commands(redis_url: str) -> None:
    with (
        work(redis_url) as worker,
        worker.channel.conn_or_acquire() as first,
        worker.channel.conn_or_acquire() as second,
    ):
        assert first is second


def test_who_soon_has_room_for_a_slice_waits_for_a_job_only_briefly(redis_url: str) -> None:
    appetite = Appetite(celery=1)
    appetite.wait_seconds = 0.05
    with work_with(redis_url, appetite) as worker:
        worker.poll()
        worker.read()
        send(redis_url, "slice", queue=BULK_QUEUE)
        appetite.most[BULK_QUEUE] = 1
        started_at = time.monotonic()
        assert [message.payload for message in worker.take(1)] == ["slice"]
        assert time.monotonic() - started_at < 0.5
