"""Killing things under load: every message is answered, once, and every extra call has its run in the ledger."""

import os
import signal
import time

import pytest

from tests.acceptance.yard import CONCURRENCY, LEASE_SECONDS, Yard, wait_until

RUNS_PER_CALL = """
select count(*) from messages join (select job_id, count(*) as runs from runs group by job_id) r using (job_id)
where r.runs < $2 and message_id = $1
"""
CALM_FOR_LONG = """
with calm as (update sweeps set calm_since = now() - interval '1 hour' where name = 'reconcile' returning 1)
select count(*) from calm
"""


def test_a_worker_killed_in_the_middle_loses_nothing_and_answers_nothing_twice(either_yard: Yard) -> None:
    yard = either_yard
    yard.model.delay_seconds = 0.3
    worker = yard.start_worker("first")
    yard.start_beat()
    contents = [f"q{n}" for n in range(150)]
    sent = yard.send(contents)
    wait_until(lambda: yard.count("select count(*) from results") >= 30 and count_in_hand(yard) >= 10, seconds=30)
    os.kill(worker.pid, signal.SIGKILL)
    in_hand = count_in_hand(yard)
    yard.start_worker("second")

    answers = [result.get(timeout=90) for result in sent]
    assert in_hand > 0, "the worker was killed while it had nothing in hand"
    assert [answer["content"] for answer in answers] == [f"answer to {content}" for content in contents]
    assert yard.count("select count(*) from results") == len(contents)
    for content, calls in yard.model.calls.items():
        assert yard.count(RUNS_PER_CALL, content, calls) == 0, f"{content} was asked {calls} times"


@pytest.mark.long
def test_who_is_started_in_a_dead_workers_place_waits_for_no_lease(yard: Yard) -> None:
    yard.environment["LLMYARD_LEASE_SECONDS"] = "60"
    yard.model.delay_seconds = 60
    dead = yard.start_worker()
    yard.start_beat()
    (reply,) = yard.send(["in hand"])
    wait_until(lambda: yard.model.calls["in hand"] == 1, seconds=20)
    wait_until(lambda: yard.count(CALM_FOR_LONG) == 1, seconds=20)
    yard.model.delay_seconds = 0
    os.kill(dead.pid, signal.SIGKILL)
    wait_until(lambda: dead.exit_status() is not None, seconds=5)
    yard.start_worker()
    assert reply.get(timeout=20)["state"] == "succeeded"
    assert yard.count("select crash_count from jobs") == 1


def count_in_hand(yard: Yard) -> int:
    return yard.count("select count(*) from jobs where state = 'running'")


def test_a_restarted_valkey_leaves_the_worker_alive_and_consuming(yard: Yard) -> None:
    """It holds unacknowledged messages all the while, which some versions of Celery do not live through."""
    yard.model.delay_seconds = 4
    worker = yard.start_worker()
    yard.start_beat()
    before = yard.send([f"before{n}" for n in range(50)])
    wait_until(lambda: sum(yard.model.calls.values()) == CONCURRENCY, seconds=20)
    yard.valkey.end()
    time.sleep(1)
    yard.start_valkey()
    assert yard.count("select count(*) from jobs where state = 'running'") == CONCURRENCY
    after = yard.send([f"after{n}" for n in range(20)])

    assert {result.get(timeout=90)["state"] for result in before + after} == {"succeeded"}
    assert worker.exit_status() is None
    assert set(yard.model.calls.values()) == {1}


def test_a_stopped_worker_hands_back_what_it_cannot_finish(either_yard: Yard) -> None:
    yard = either_yard
    yard.model.delay_seconds = 60
    first = yard.start_worker("first")
    sent = yard.send([f"q{n}" for n in range(10)])
    wait_until(lambda: sum(yard.model.calls.values()) == 10, seconds=20)
    started_at = time.monotonic()
    os.kill(first.pid, signal.SIGTERM)
    wait_until(lambda: first.exit_status() is not None, seconds=15)
    assert time.monotonic() - started_at < 10
    wait_until(lambda: yard.model.hung_up == 10, seconds=5)

    yard.model.delay_seconds = 0
    yard.start_worker("second")
    assert {result.get(timeout=30)["state"] for result in sent} == {"succeeded"}
    assert yard.count("select max(crash_count) from jobs") == 0, "a planned stop is no crash"


def test_a_run_longer_than_its_lease_is_kept_alive_by_the_heartbeat(yard: Yard) -> None:
    yard.model.delay_seconds = 2.5 * LEASE_SECONDS
    yard.start_worker()
    yard.start_beat()
    (sent,) = yard.send(["slow"])
    assert sent.get(timeout=30)["state"] == "succeeded"
    assert yard.model.calls == {"slow": 1}
