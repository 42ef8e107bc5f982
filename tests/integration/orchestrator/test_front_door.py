"""The door for callers with an answer to wait for."""

import asyncio
import json
import time
from typing import Any

import asyncpg
import pytest
import redis
from uuid_utils.compat import uuid7

from llm_pool.catalogs.startup import build_mock_catalog
from orchestrator.agents.catalog import DEFAULT_PROFILE, AgentProfile, TenantProfile, save_tenants
from orchestrator.dispatch import dispatch, is_broker_reachable, tell_ended, tell_failure, tell_parked, tell_success
from orchestrator.front_door import FrontDoor
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.sweeps import Waiting
from orchestrator.outcomes import EndedJob, Parked
from shared.database import Database
from shared.errors import InputError, JobFailedError, NotFoundError
from tests.builders import build_message
from tests.ledger import ANSWERED, Jobs, count
from tests.running import build_recorder


@pytest.fixture
def door(database: Database) -> FrontDoor:
    return FrontDoor(database, build_mock_catalog(("fast", "quality")))


def read_queue(url: str) -> list[dict[str, Any]]:
    """What workers will be told, oldest first."""
    with redis.Redis.from_url(url) as client:
        return [json.loads(entry)["headers"] for entry in reversed(client.lrange("celery", 0, -1))]


def read_result(url: str, task_id: str) -> dict[str, Any] | None:
    with redis.Redis.from_url(url) as client:
        kept = client.get(f"celery-task-meta-{task_id}")
    return kept and json.loads(kept)


async def test_a_message_becomes_a_job_and_a_worker_is_told(door: FrontDoor, broker: str) -> None:
    job = await door.submit(build_message(id="m-1"))
    assert (job.state, job.message_id, job.task_id) == (JobState.QUEUED, "m-1", str(job.job_id))
    (told,) = read_queue(broker)
    assert (told["task"], told["id"]) == ("run_job", job.task_id)
    assert told["argsrepr"] == repr(("default", str(job.job_id)))


async def test_the_same_message_twice_is_one_job_and_one_call_of_a_worker(door: FrontDoor, broker: str) -> None:
    message = build_message(id="m-1")
    jobs = await asyncio.gather(*(door.submit(message) for _ in range(5)))
    assert len({job.job_id for job in jobs}) == 1
    assert len(read_queue(broker)) == 1


async def test_a_worker_shall_store_the_result_but_nobody_here_waits_for_it(broker: str) -> None:
    with redis.Redis.from_url(broker) as client:
        client.config_resetstat()
        await asyncio.to_thread(dispatch, [Waiting(uuid7(), "default", "task-1")])
        assert "cmdstat_subscribe" not in client.info("commandstats")
    (told,) = read_queue(broker)
    assert told["ignore_result"] is False


async def test_without_a_broker_the_job_is_still_taken_in(
    door: FrontDoor, no_broker: None, superuser: asyncpg.Connection
) -> None:
    started = time.monotonic()
    job = await door.submit(build_message())
    assert time.monotonic() - started < 3
    assert job.state is JobState.QUEUED
    assert await superuser.fetchval("select state from jobs") == "queued"


async def test_without_a_broker_telling_is_given_up(no_broker: None) -> None:
    await asyncio.to_thread(tell_success, ["task-1"], {})
    assert not await asyncio.to_thread(is_broker_reachable, 0.3)


@pytest.mark.parametrize(
    ("tell", "state"), [(tell_success, "SUCCESS"), (tell_parked, "PARKED"), (tell_failure, "FAILURE")]
)
async def test_what_is_told_stands_where_celerys_pollers_look(broker: str, tell: Any, state: str) -> None:
    news = JobFailedError("T: m") if state == "FAILURE" else {"content": "fine"}
    await asyncio.to_thread(tell, ["task-1", "task-2"], news)
    for task_id in ("task-1", "task-2"):
        told = read_result(broker, task_id)
        assert told
        assert told["status"] == state
        result = told["result"]
        assert result == {"content": "fine"} or result["exc_message"] == ["T: m"]


async def test_who_was_told_an_end_is_not_told_that_the_job_is_parked(broker: str) -> None:
    await asyncio.to_thread(tell_failure, ["task-1"], JobFailedError("T: m"))
    await asyncio.to_thread(tell_parked, ["task-1", "task-2"], {})
    told = {task_id: read_result(broker, task_id) for task_id in ("task-1", "task-2")}
    assert {task_id: meta and meta["status"] for task_id, meta in told.items()} == {
        "task-1": "FAILURE",
        "task-2": "PARKED",
    }


async def test_an_ended_job_is_told_in_the_words_of_every_failure(broker: str) -> None:
    ended = EndedJob({"error": {"type": "Quarantined", "message": "5 runs"}}, ("task-1", "task-2"))
    await asyncio.to_thread(tell_ended, [ended])
    for task_id in ended.task_ids:
        told = read_result(broker, task_id)
        assert told
        assert (told["status"], told["result"]["exc_message"]) == ("FAILURE", ["Quarantined: 5 runs"])


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"tenant_id": "nobody"}, NotFoundError, "tenant_id"),
        ({"agent_id": "nobody"}, NotFoundError, "agent_id"),
        ({"agent_id": "asleep"}, InputError, "agent_id"),
        ({"model": "huge"}, NotFoundError, "model"),
    ],
)
async def test_what_cannot_be_answered_is_told_before_a_row_exists(
    door: FrontDoor,
    database: Database,
    superuser: asyncpg.Connection,
    fields: dict[str, str],
    kind: type[InputError],
    field: str,
) -> None:
    asleep = AgentProfile("asleep", "Zoe", "a sleeper", is_active=False)
    await save_tenants(database, [TenantProfile("default", "Default", "assistant", (*DEFAULT_PROFILE.agents, asleep))])
    with pytest.raises(kind) as caught:
        await door.submit(build_message(**fields))
    assert (type(caught.value), caught.value.field) == (kind, field)
    assert await count(superuser, "jobs") == 0


async def test_an_unknown_job_is_told(door: FrontDoor) -> None:
    with pytest.raises(NotFoundError):
        await door.wait(uuid7(), 1)


async def test_waiting_ends_with_the_answer(door: FrontDoor, jobs: Jobs) -> None:
    claim = await jobs.start()
    waiting = asyncio.create_task(door.wait(claim.job_id, 10))
    await asyncio.sleep(0.05)
    await jobs.record(claim, ANSWERED)
    job = await asyncio.wait_for(waiting, 2)
    assert (job.state, job.result) == (JobState.SUCCEEDED, ANSWERED.result)


async def test_waiting_ends_when_the_job_is_parked(door: FrontDoor, jobs: Jobs, database: Database) -> None:
    claim = await jobs.start()
    # Connects, so that the next look at the job comes before it is parked.
    await door.get(claim.job_id)
    waiting = asyncio.create_task(door.wait(claim.job_id, 10))
    await asyncio.sleep(0.1)
    await build_recorder(database).record(claim, Parked("T", "m"))
    job = await asyncio.wait_for(waiting, 2)
    assert job.state is JobState.PARKED
    assert job.failed_request_id


async def test_waiting_for_a_parked_job_is_waiting_for_its_answer(
    door: FrontDoor, jobs: Jobs, database: Database
) -> None:
    claim = await jobs.start()
    await build_recorder(database).record(claim, Parked("T", "m"))
    started = time.monotonic()
    assert (await door.wait(claim.job_id, 0.2)).state is JobState.PARKED
    assert time.monotonic() - started >= 0.2


async def test_waiting_ends_in_time(door: FrontDoor, jobs: Jobs) -> None:
    claim = await jobs.start()
    started = time.monotonic()
    assert (await door.wait(claim.job_id, 0.2)).state is JobState.RUNNING
    assert 0.2 <= time.monotonic() - started < 1
