"""RabbitMQ killed, filled with garbage and started late: what holds of a message holds with it for a broker too."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from orchestrator.celery_app import JOBS_QUEUE
from tests.acceptance.model_server import ModelServer
from tests.acceptance.rabbitmq import CONSUMER_MILLISECONDS, NOT_INSTALLED, RabbitMQ, find_program, prepare_rabbitmq
from tests.acceptance.test_garbage import DEEP
from tests.acceptance.yard import CONCURRENCY, Reply, Yard, build_message, wait_until

pytestmark = pytest.mark.long

SENDER_GIVES_UP = {"retry_policy": {"max_retries": 1, "interval_start": 0}}


@pytest.fixture
def mortal_rabbitmq(tmp_path: Path) -> Iterator[RabbitMQ]:
    """A node of the test's own: a quorum queue that was deleted and declared anew shortly before a kill may come back
    without a leader, and stay so (RabbitMQ 3.10)."""
    program = find_program()
    if program is None:
        pytest.skip(NOT_INSTALLED)
    with prepare_rabbitmq(tmp_path / "rabbitmq", program) as server:
        yield server


@pytest.fixture
def mortal_yard(tmp_path: Path, database_url: str, model: ModelServer, mortal_rabbitmq: RabbitMQ) -> Iterator[Yard]:
    with Yard(tmp_path, database_url, model, broker_url=mortal_rabbitmq.url) as opened:
        yield opened


@pytest.mark.timeout(300)
def test_a_killed_rabbitmq_leaves_the_worker_alive_and_as_busy_as_before(
    mortal_yard: Yard, mortal_rabbitmq: RabbitMQ
) -> None:
    """What it had not acknowledged is delivered again, and what ran goes on: two deliveries, one call."""
    yard, rabbitmq = mortal_yard, mortal_rabbitmq
    yard.model.delay_seconds = 4
    worker = yard.start_worker()
    yard.start_beat()
    before = yard.send([f"before{n}" for n in range(CONCURRENCY + 10)])
    wait_until(lambda: sum(yard.model.calls.values()) == CONCURRENCY, seconds=20)
    os.kill(rabbitmq.node.pid, signal.SIGKILL)
    wait_until(lambda: rabbitmq.node.exit_status() is not None, seconds=5)
    with pytest.raises(OperationalError):
        yard.producer().send_task("handle_message", [build_message("nobody there")], **SENDER_GIVES_UP)
    rabbitmq.start()
    # Held until it was seen: on a slow disk RabbitMQ takes longer to confirm them all than the model for an answer. It
    # may let a consumer hang for 30 s that came before its queue had a leader, at each of three queues.
    yard.model.is_held = True
    after = yard.send([f"after{n}" for n in range(CONCURRENCY)])
    wait_until(lambda: in_hand(yard) == CONCURRENCY and yard.model.calls["after0"] == 1, seconds=150)
    yard.model.is_held = False

    assert {reply.get(timeout=60)["state"] for reply in before + after} == {"succeeded"}
    assert worker.exit_status() is None
    assert set(yard.model.calls.values()) == {1}
    assert yard.count("select count(*) from results") == len(before + after)


def in_hand(yard: Yard) -> int:
    return yard.count("select count(*) from jobs where state = 'running'")


@pytest.fixture
def impatient_rabbitmq(rabbitmq: RabbitMQ) -> Iterator[None]:
    """Waits a second for an acknowledgement, where its own limit is half an hour."""
    rabbitmq.limit_consumers(1_000)
    yield
    rabbitmq.limit_consumers(CONSUMER_MILLISECONDS)


def test_a_run_longer_than_rabbitmq_waits_for_its_message_is_answered_once(
    impatient_rabbitmq: None, rabbitmq_yard: Yard
) -> None:
    """It closes the channel and delivers again, at which Celery ends the worker unless told otherwise."""
    yard = rabbitmq_yard
    yard.model.delay_seconds = 5
    worker = yard.start_worker()
    sent = yard.send([f"q{n}" for n in range(5)])
    assert {reply.get(timeout=30)["state"] for reply in sent} == {"succeeded"}
    yard.model.delay_seconds = 0
    assert yard.send(["after"])[0].get(timeout=30)["state"] == "succeeded"
    assert worker.exit_status() is None
    assert "PRECONDITION_FAILED - delivery acknowledgement" in worker.new_log()
    assert set(yard.model.calls.values()) == {1}


CALL = {"task": "handle_message", "id": "none", "root_id": "none", "retries": 0}
GARBAGE = {
    "text": (b"this is not JSON", "text/plain", {}),
    "half": (b"{half", "application/json", {**CALL, "id": "half"}),
    "pickle": (b"\x80\x04.", "application/x-python-serialize", {**CALL, "id": "pickle"}),
    "no-call": (b'"hello"', "application/json", {**CALL, "id": "no-call"}),
    "deep": (DEEP, "application/json", {**CALL, "id": "deep"}),
    "other": (b"[[],{},{}]", "application/json", {**CALL, "task": "nothing", "id": "other"}),
    "no headers": (b"[[],{},{}]", "application/json", {}),
    "nothing at all": (b"", None, {}),
}


def test_garbage_on_rabbitmqs_queue_is_kept_as_evidence_and_the_worker_goes_on(rabbitmq_yard: Yard) -> None:
    yard = rabbitmq_yard
    worker = yard.start_worker()
    with Connection(yard.broker_url) as connection:
        producer = Producer(connection.default_channel)
        for body, content_type, headers in GARBAGE.values():
            options = {"content_type": content_type, "content_encoding": "utf-8"} if content_type else {}
            producer.publish(body, routing_key=JOBS_QUEUE, headers=headers, **options)
    wait_until(lambda: yard.count("select count(*) from rejected_messages") == len(GARBAGE), seconds=30)
    assert yard.send(["hello"])[0].get(timeout=30)["state"] == "succeeded"
    assert worker.exit_status() is None
    told = [Reply(yard.redis_url, task_id).get(timeout=5) for task_id in ("half", "pickle", "no-call", "deep")]
    assert {error["exc_type"] for error in told} == {"MessageRejectedError"}
    with Connection(yard.broker_url) as connection:
        left = connection.default_channel.queue_declare(JOBS_QUEUE, passive=True)
    assert left.message_count == 0
