"""Celery's configuration: what is set on purpose stays set, and a wrong environment stops the start in one sentence."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import states
from celery.app.defaults import NAMESPACES, flatten
from kombu import Connection

from orchestrator import celery_app
from orchestrator.beat import MAINTENANCE_QUEUE, SCHEDULE
from orchestrator.celery_app import BULK_QUEUE, CONNECTIONS, QUEUES, RABBITMQ, REDIS, REDIS_TRANSPORT, RESULTS, WORKER
from orchestrator.dispatch import PARKED

TABLES = {
    "QUEUES": QUEUES,
    "WORKER": WORKER,
    "CONNECTIONS": CONNECTIONS,
    "RESULTS": RESULTS,
    "REDIS": REDIS,
    "REDIS_TRANSPORT": REDIS_TRANSPORT,
    "RABBITMQ": RABBITMQ,
}

SAID_ABOVE = {
    "task_serializer": "accept_content",
    "result_serializer": "accept_content",
    "result_backend_max_retries": "result_backend_always_retry",
    "redis_socket_connect_timeout": "redis_socket_timeout",
    "redis_socket_keepalive": "redis_socket_timeout",
    "redis_backend_health_check_interval": "redis_socket_timeout",
    "event_queue_durable": "control_queue_durable",
    "unacked_restore_throttle": "unacked_restore_interval",
    "socket_connect_timeout": "socket_timeout",
    "socket_keepalive": "socket_timeout",
    "health_check_interval": "socket_timeout",
}
"""Settings that follow one whose reason is theirs too."""

# In a process of its own, as the application keeps its first configuration.
START = """
from orchestrator.tasks import app
transport = app.conf.broker_transport_options
kinds = [queue.queue_arguments for queue in app.conf.task_queues]
print((app.conf.broker_url, app.conf.result_backend, app.conf.worker_concurrency, transport, kinds, sorted(app.tasks)))
"""


def start(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"LLMYARD_DATA_DIR": str(directory), **environment}
    command = (sys.executable, "-c", START)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)


def test_without_a_broker_it_stops_with_one_sentence(tmp_path: Path) -> None:
    finished = start(tmp_path)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("llmyard: REDIS_URL is not set: ")
    assert finished.stderr.count("\n") == 1


def test_with_a_redis_it_knows_its_tasks_and_does_as_it_was_told(tmp_path: Path) -> None:
    url = "redis://127.0.0.1:1/0"
    finished = start(tmp_path, REDIS_URL=url, LLMYARD_CONCURRENCY="7", LLMYARD_LEASE_SECONDS="9")
    assert finished.stderr == ""
    *configuration, transport, kinds, tasks = ast.literal_eval(finished.stdout)
    assert configuration == [url, url, 7]
    assert transport == {**REDIS_TRANSPORT, "visibility_timeout": 9}
    assert kinds == [None, None, None]
    assert {"handle_message", "run_job", *(entry["task"] for entry in SCHEDULE.values())} <= set(tasks)


def test_with_a_rabbitmq_its_queues_are_quorum_queues_and_results_stay_in_redis(tmp_path: Path) -> None:
    redis_url, broker_url = "redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"
    finished = start(tmp_path, REDIS_URL=redis_url, BROKER_URL=broker_url)
    assert finished.stderr == ""
    broker, backend, _, transport, kinds, _ = ast.literal_eval(finished.stdout)
    assert (broker, backend) == (broker_url, redis_url)
    assert transport == {"confirm_publish": True}
    assert kinds == [{"x-queue-type": "quorum"}] * 3


def test_a_broker_of_a_third_kind_is_refused_in_one_sentence(tmp_path: Path) -> None:
    finished = start(tmp_path, REDIS_URL="redis://127.0.0.1:1/0", BROKER_URL="sqs://somewhere")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("llmyard: BROKER_URL begins with 'sqs': ")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("name", SCHEDULE)
def test_a_sweep_stays_out_of_the_jobs_queue_and_minds_no_clock(name: str) -> None:
    entry = SCHEDULE[name]
    assert entry["options"]["queue"] == MAINTENANCE_QUEUE
    assert entry["options"]["expires"] >= 600, "a worker whose clock is ahead would drop every sweep"
    assert entry["schedule"] > 0


def test_workers_listen_where_messages_and_sweeps_come() -> None:
    for kind in (REDIS, RABBITMQ):
        assert [queue.name for queue in kind["task_queues"]] == ["celery", MAINTENANCE_QUEUE, BULK_QUEUE]
        # Else what somebody publishes on the exchange, and not on the queue, comes to both.
        assert [queue.routing_key for queue in kind["task_queues"]] == ["celery", MAINTENANCE_QUEUE, BULK_QUEUE]
    # What a producer with nothing but Celery sends to.
    assert QUEUES["task_default_queue"] == "celery"
    assert QUEUES["beat_schedule"] == SCHEDULE


def test_json_only() -> None:
    assert QUEUES["accept_content"] == ["json"]
    assert QUEUES["task_serializer"] == QUEUES["result_serializer"] == "json"


def test_nothing_is_reserved_and_nothing_acknowledged_early() -> None:
    assert (WORKER["task_acks_late"], WORKER["task_reject_on_worker_lost"]) == (True, False)
    assert WORKER["worker_prefetch_multiplier"] == 1


def test_a_run_goes_on_while_the_broker_is_away() -> None:
    assert WORKER["worker_cancel_long_running_tasks_on_connection_loss"] is False
    assert CONNECTIONS["broker_connection_max_retries"] is None
    assert CONNECTIONS["broker_channel_error_retry"] is True


def test_a_silent_rabbitmq_is_noticed_within_a_lease() -> None:
    assert 2 * RABBITMQ["broker_heartbeat"] < 30


def test_no_queue_is_neither_durable_nor_exclusive() -> None:
    """RabbitMQ 4.3 refuses such a one."""
    assert RABBITMQ["control_queue_durable"]
    assert RABBITMQ["event_queue_durable"]
    assert all(queue.durable for queue in RABBITMQ["task_queues"])


def test_messages_of_dead_workers_are_looked_for_every_second() -> None:
    assert REDIS_TRANSPORT["unacked_restore_interval"] * REDIS_TRANSPORT["unacked_restore_throttle"] == 1


def test_a_worker_killed_with_the_lock_in_hand_does_not_stop_the_looking() -> None:
    with Connection("redis://", transport_options=REDIS_TRANSPORT) as connection:
        assert connection.transport.Channel.from_transport_options.count("unacked_mutex_expire") == 1
    assert REDIS_TRANSPORT["unacked_mutex_expire"] <= 10


def test_a_silent_broker_is_noticed() -> None:
    assert REDIS_TRANSPORT["socket_timeout"] <= 30
    assert RESULTS["redis_socket_timeout"] <= 30
    assert REDIS_TRANSPORT["socket_keepalive"]
    assert RESULTS["redis_socket_keepalive"]


def test_celery_knows_every_setting() -> None:
    # Read by Celery's backends, though its own table of settings leaves them out.
    unlisted = {"redis_backend_health_check_interval", "result_backend_thread_safe"}
    ours = {name for table, settings in TABLES.items() if table != "REDIS_TRANSPORT" for name in settings}
    assert ours - unlisted <= {name for name, _ in flatten(NAMESPACES)}


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_stands_beside_its_reason(table: str) -> None:
    """A comment right above it, or above the setting it goes with."""
    source = Path(celery_app.__file__).read_text()
    lines = source.splitlines()
    written = find_settings(source, table)
    assert list(written) == list(TABLES[table]), "a setting comes from elsewhere"
    reasoned = {name for name, line in written.items() if lines[line - 2].strip().startswith("#")}
    explained = reasoned | {name for name in written if SAID_ABOVE.get(name) in reasoned}
    assert explained == set(written)
    assert not reasoned & SAID_ABOVE.keys(), "has a reason of its own"


def find_settings(source: str, table: str) -> dict[str, int]:
    """Each setting of a table, and its line."""
    (value,) = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == table
    ]
    assert isinstance(value, ast.Dict)
    keys: list[Any] = value.keys
    return {key.value: key.lineno for key in keys}


def test_a_parked_task_is_not_ready() -> None:
    assert PARKED not in states.READY_STATES
