"""Celery's configuration: what is set on purpose stays set, and a wrong environment stops the start in one sentence."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from celery import states
from celery.app.defaults import NAMESPACES, flatten
from kombu import Connection

from orchestrator.beat import MAINTENANCE_QUEUE, SCHEDULE
from orchestrator.celery_app import CONNECTIONS, QUEUES, TRANSPORT, WORKER
from orchestrator.dispatch import PARKED

# In a process of its own, as the application keeps its first configuration.
START = """
from orchestrator.tasks import app
visible_seconds = app.conf.broker_transport_options["visibility_timeout"]
print((app.conf.broker_url, app.conf.result_backend, app.conf.worker_concurrency, visible_seconds, sorted(app.tasks)))
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


def test_with_a_broker_it_knows_its_tasks_and_does_as_it_was_told(tmp_path: Path) -> None:
    redis_url, broker_url = "redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"
    told = {"REDIS_URL": redis_url, "BROKER_URL": broker_url, "LLMYARD_CONCURRENCY": "7", "LLMYARD_LEASE_SECONDS": "9"}
    finished = start(tmp_path, **told)
    assert finished.stderr == ""
    *configuration, tasks = ast.literal_eval(finished.stdout)
    assert configuration == [broker_url, redis_url, 7, 9]
    assert {"handle_message", "run_job", *(entry["task"] for entry in SCHEDULE.values())} <= set(tasks)


@pytest.mark.parametrize("name", SCHEDULE)
def test_a_sweep_stays_out_of_the_jobs_queue_and_minds_no_clock(name: str) -> None:
    entry = SCHEDULE[name]
    assert entry["options"]["queue"] == MAINTENANCE_QUEUE
    assert entry["options"]["expires"] >= 600, "a worker whose clock is ahead would drop every sweep"
    assert entry["schedule"] > 0


def test_workers_listen_where_messages_and_sweeps_come() -> None:
    assert [queue.name for queue in QUEUES["task_queues"]] == [QUEUES["task_default_queue"], MAINTENANCE_QUEUE]
    # What a producer with nothing but Celery sends to.
    assert QUEUES["task_default_queue"] == "celery"
    assert QUEUES["beat_schedule"] == SCHEDULE


def test_json_only() -> None:
    assert QUEUES["accept_content"] == ["json"]
    assert QUEUES["task_serializer"] == QUEUES["result_serializer"] == "json"


def test_nothing_is_reserved_and_nothing_acknowledged_early() -> None:
    assert (WORKER["task_acks_late"], WORKER["task_reject_on_worker_lost"]) == (True, False)
    assert (WORKER["worker_prefetch_multiplier"], WORKER["worker_disable_prefetch"]) == (1, True)


def test_a_run_goes_on_while_the_broker_is_away() -> None:
    assert WORKER["worker_cancel_long_running_tasks_on_connection_loss"] is False
    assert CONNECTIONS["broker_connection_max_retries"] is None


def test_messages_of_dead_workers_are_looked_for_every_second() -> None:
    assert TRANSPORT["unacked_restore_interval"] * TRANSPORT["unacked_restore_throttle"] == 1


def test_a_worker_killed_with_the_lock_in_hand_does_not_stop_the_looking() -> None:
    with Connection("redis://", transport_options=TRANSPORT) as connection:
        assert connection.transport.Channel.from_transport_options.count("unacked_mutex_expire") == 1
    assert TRANSPORT["unacked_mutex_expire"] <= 10


def test_a_silent_broker_is_noticed() -> None:
    assert TRANSPORT["socket_timeout"] == CONNECTIONS["redis_socket_timeout"] == 30
    assert TRANSPORT["socket_keepalive"]
    assert CONNECTIONS["redis_socket_keepalive"]


def test_celery_knows_every_setting() -> None:
    # Read by Celery's Redis backend, though its own table of settings leaves it out.
    unlisted = {"redis_backend_health_check_interval"}
    assert {*QUEUES, *WORKER, *CONNECTIONS} - unlisted <= {name for name, _ in flatten(NAMESPACES)}


def test_a_parked_task_is_not_ready() -> None:
    assert PARKED not in states.READY_STATES
