"""The end of a worker: jobs go on for the grace, a second signal cuts it short, and nothing makes it wait for ever."""

import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator.event_loop import LoopThread
from orchestrator.stack.children import Child
from tests.acceptance.yard import Yard, build_message, wait_until
from tests.fakes.postgres_gate import PostgresGate

CATALOG = """
deployments: [{name: poisonable, provider: sync, model: m, options: {adapter: "tests.fakes.poison:adapter"}}]
groups: {poison: {deployments: [poisonable], retries: 0}}
"""
STATES = "select state, count(*) from jobs group by state"


def count_states(yard: Yard) -> dict[str, int]:
    return {row["state"]: row["count"] for row in yard.rows(STATES)}


def wait_for_end(worker: Child, seconds: float) -> float:
    """Returns how long it took; a worker that had to be forced has another status."""
    started_at = time.monotonic()
    wait_until(lambda: worker.exit_status() is not None, seconds)
    assert worker.exit_status() == 0, worker.log_tail()
    return time.monotonic() - started_at


def test_jobs_go_on_within_the_grace_and_nothing_new_is_taken(yard: Yard) -> None:
    yard.environment["LLMYARD_SHUTDOWN_GRACE_SECONDS"] = "30"
    yard.model.delay_seconds = 2
    worker = yard.start_worker()
    taken = yard.send([f"before{n}" for n in range(5)])
    wait_until(lambda: sum(yard.model.calls.values()) == 5, seconds=20)
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: yard.count("select count(*) from workers where is_stopping") == 1, seconds=5)
    yard.send([f"after{n}" for n in range(5)])
    wait_for_end(worker, seconds=20)
    assert {reply.get(timeout=1)["state"] for reply in taken} == {"succeeded"}
    assert sum(yard.model.calls.values()) == 5
    assert yard.count("select count(*) from workers") == 0, "it took its leave"


def test_a_second_signal_hands_back_at_once(yard: Yard) -> None:
    yard.environment |= {"LLMYARD_SHUTDOWN_GRACE_SECONDS": "600", "LLMYARD_CONCURRENCY": "64"}
    yard.model.delay_seconds = 600
    worker = yard.start_worker()
    yard.send([f"q{n}" for n in range(50)])
    wait_until(lambda: sum(yard.model.calls.values()) == 50, seconds=30)
    os.kill(worker.pid, signal.SIGINT)
    time.sleep(1)
    assert count_states(yard) == {"running": 50}
    os.kill(worker.pid, signal.SIGQUIT)
    print(f"gone after {wait_for_end(worker, seconds=20):.1f} s")
    assert count_states(yard) == {"queued": 50}
    assert yard.count("select max(crash_count) from jobs") == 0
    wait_until(lambda: yard.model.hung_up == 50, seconds=5)


@pytest.mark.long
def test_a_stop_does_not_wait_for_a_database_that_is_away(yard: Yard) -> None:
    """Some jobs wait for a model, some have an answer to record, and some would be claimed."""
    loop, gate = LoopThread(), PostgresGate(yard.database_url)
    loop.run(gate.open())
    yard.environment["DATABASE_URL"] = gate.url
    yard.model.delay_seconds = 3
    worker = yard.start_worker()
    yard.send([f"early{n}" for n in range(5)])
    wait_until(lambda: sum(yard.model.calls.values()) == 5, seconds=20)
    loop.run(gate.shut())
    yard.send([f"late{n}" for n in range(5)])
    time.sleep(3.5)
    os.kill(worker.pid, signal.SIGTERM)
    print(f"gone after {wait_for_end(worker, seconds=15):.1f} s")
    assert count_states(yard) == {"running": 5}


@pytest.mark.long
def test_only_a_planned_end_is_the_end_of_a_worker_that_is_kept_alive(yard: Yard) -> None:
    Path(yard.environment["LLMYARD_CONFIG"]).write_text(CATALOG)
    yard.environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    keeper = yard.start_worker(is_kept_alive=True)
    yard.send_messages([build_message("please leave", model="poison")])
    wait_until(lambda: keeper.new_log().count("worker_ready") == 2, seconds=30)
    assert "exited with status 0, and is started again" in keeper.new_log()
    yard.producer().control.shutdown()
    wait_for_end(keeper, seconds=20)
    assert keeper.new_log().count("worker_ready") == 2
