"""A slice on real workers: each of its jobs has its own row and one answer, whatever dies; nobody waits behind it."""

import json
import os
import signal
import time

import pytest
from uuid_utils.compat import uuid7

from tests.acceptance.yard import CONCURRENCY, Yard, build_message, wait_until

# As a batch stores them: queued, and without a message of their own.
ADD = """
with job as (
    insert into jobs (id, tenant_id, task_id, state, batch_id)
    select id, 'default', id::text, 'queued', $2 from unnest($1::uuid[]) as id returning id
)
insert into messages (job_id, tenant_id, message_id, body)
select id, 'default', id::text, jsonb_set($3::jsonb, '{content}', to_jsonb('line ' || id)) from job
"""
STATES = "select state, count(*) from jobs where batch_id is not null group by state"
JOBS = 4 * CONCURRENCY


def send_slice(yard: Yard, count: int) -> None:
    job_ids = [uuid7() for _ in range(count)]
    yard.rows(ADD, job_ids, uuid7(), json.dumps(build_message("line")))
    arguments = ["default", [str(job_id) for job_id in job_ids]]
    yard.producer().send_task("run_slice", arguments, queue="bulk", ignore_result=True)


def count_states(yard: Yard) -> dict[str, int]:
    return {row["state"]: row["count"] for row in yard.rows(STATES)}


def test_every_job_of_a_slice_is_answered_once_and_as_many_wait_at_once_as_there_are_slots(either_yard: Yard) -> None:
    yard = either_yard
    yard.model.delay_seconds = 0.2
    yard.start_worker()
    send_slice(yard, JOBS)
    send_slice(yard, JOBS)
    wait_until(lambda: count_states(yard) == {"succeeded": 2 * JOBS}, seconds=30)
    assert set(yard.model.calls.values()) == {1}
    assert len(yard.model.calls) == 2 * JOBS
    assert yard.model.most_at_once == CONCURRENCY
    for table in ("runs", "attempts", "results"):
        assert yard.count(f"select count(*) from {table}") == 2 * JOBS
    assert yard.count("select count(*) from leases") == 0


def test_somebody_who_waits_for_an_answer_goes_before_a_slice(yard: Yard) -> None:
    yard.model.delay_seconds = 0.5
    yard.start_worker()
    send_slice(yard, 8 * CONCURRENCY)
    wait_until(lambda: yard.model.calls.total() >= CONCURRENCY, seconds=20)
    started_at = time.monotonic()
    (reply,) = yard.send(["somebody waits"])
    assert reply.get(timeout=20)["state"] == "succeeded"
    assert time.monotonic() - started_at < 2.5, "a slot, then its own answer; the slice takes four seconds"
    assert count_states(yard)["running"] > CONCURRENCY


@pytest.mark.long
def test_a_killed_workers_slice_is_answered_by_another(yard: Yard) -> None:
    yard.model.delay_seconds = 0.3
    worker = yard.start_worker()
    yard.start_beat()
    send_slice(yard, JOBS)
    wait_until(lambda: count_states(yard).get("succeeded", 0) >= CONCURRENCY, seconds=20)
    os.kill(worker.pid, signal.SIGKILL)
    yard.start_worker("another")
    wait_until(lambda: count_states(yard) == {"succeeded": JOBS}, seconds=60)
    assert yard.count("select count(*) from results") == JOBS
    extra = yard.model.calls.total() - JOBS
    assert extra <= CONCURRENCY
    assert yard.count("select count(*) from runs where outcome = 'expired'") >= extra


@pytest.mark.long
def test_a_worker_that_ends_hands_its_slice_back(yard: Yard) -> None:
    yard.model.delay_seconds = 3
    worker = yard.start_worker()
    send_slice(yard, JOBS)
    wait_until(lambda: yard.model.calls.total() == CONCURRENCY, seconds=20)
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: worker.exit_status() is not None, seconds=15)
    assert worker.exit_status() == 0, worker.log_tail()
    assert yard.count("select count(*) from leases") == 0, "it kept none"
    yard.model.delay_seconds = 0
    yard.start_worker("another")
    wait_until(lambda: count_states(yard) == {"succeeded": JOBS}, seconds=20)
