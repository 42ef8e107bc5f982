"""What could not be done now, and what could not be taken in at all."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from orchestrator.failed_requests import store
from orchestrator.failed_requests.policy import PROBE_INTERVAL_SECONDS, DrainPulse
from orchestrator.failed_requests.replay import release_due
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim
from orchestrator.outcomes import Failed, Parked, Succeeded
from orchestrator.recorder import Recorder
from shared.database import Database
from shared.errors import InputError
from tests.ledger import Jobs

ANSWER = Succeeded({"content": "fine"})
FAILURE = Failed({"error": {"type": "T", "message": "m"}})
DUE = "update failed_requests set next_try_at = now(), updated_at = now() - interval '1 minute'"


class Outage:
    """Parks jobs, and lets a test act as the worker that gets them back."""

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self.database = database
        self.jobs = jobs
        self.recorder = Recorder(database)

    async def park(self, claim: Claim | None = None, retry_after_seconds: float | None = None) -> tuple[UUID, Claim]:
        claim = claim or await self.jobs.start()
        parked = await self.recorder.record(claim, Parked("LLMOverloadedError", "down", retry_after_seconds))
        assert isinstance(parked, Parked)
        assert parked.result
        return UUID(parked.result["failed_request_id"]), claim

    async def replay(self, claim: Claim) -> Claim:
        replay = await self.jobs.claim(claim.job_id)
        assert replay
        return replay

    async def release(self, limit: int) -> set[UUID]:
        async with self.database.as_system() as connection:
            return {job.job_id for job in await store.release(connection, limit=limit)}

    async def read_pulse(self) -> DrainPulse:
        async with self.database.as_system() as connection:
            return await store.read_pulse(connection)


@pytest.fixture
def outage(database: Database, jobs: Jobs) -> Outage:
    return Outage(database, jobs)


async def test_a_parked_job_says_where_and_until_when(outage: Outage, superuser: asyncpg.Connection) -> None:
    request_id, claim = await outage.park(retry_after_seconds=60)
    job = await outage.jobs.find(claim.job_id)
    assert (job.state, job.failed_request_id, job.result) == (JobState.PARKED, request_id, None)
    row = await superuser.fetchrow("select *, next_try_at - now() as left from failed_requests")
    assert (row["state"], row["parks"], row["operation"]) == ("parked", 1, "message")
    assert (row["error_type"], row["error_message"]) == ("LLMOverloadedError", "down")
    assert 55 < row["left"].total_seconds() <= 60


async def test_parked_again_it_keeps_its_id(outage: Outage, superuser: asyncpg.Connection) -> None:
    request_id, claim = await outage.park()
    await superuser.execute(DUE)
    assert await outage.release(1) == {claim.job_id}
    again, _ = await outage.park(await outage.replay(claim))
    assert again == request_id
    assert tuple(await superuser.fetchrow("select state, parks from failed_requests")) == ("parked", 2)


async def test_only_as_many_as_allowed_are_released_the_longest_due_first(
    outage: Outage, superuser: asyncpg.Connection
) -> None:
    claims = [(await outage.park())[1] for _ in range(4)]
    for age, claim in enumerate(claims):
        due = "update failed_requests set next_try_at = now() - make_interval(secs => $1) where job_id = $2"
        await superuser.execute(due, float(age), claim.job_id)
    assert await outage.release(2) == {claims[3].job_id, claims[2].job_id}
    assert await outage.release(9) == {claims[1].job_id, claims[0].job_id}
    assert await outage.release(9) == set()


async def test_what_is_not_due_stays(outage: Outage) -> None:
    _, claim = await outage.park()
    assert await outage.release(9) == set()
    assert (await outage.jobs.find(claim.job_id)).state is JobState.PARKED


async def test_two_releases_at_once_send_each_job_back_once(outage: Outage, superuser: asyncpg.Connection) -> None:
    parked = [(await outage.park())[1].job_id for _ in range(12)]
    await superuser.execute(DUE)
    # Connects, so that the three begin together.
    await asyncio.gather(*(outage.read_pulse() for _ in range(3)))
    released = await asyncio.gather(*(outage.release(5) for _ in range(3)))
    assert sum(len(ids) for ids in released) == len(set().union(*released)) == 12
    assert set().union(*released) == set(parked)


async def test_one_probe_then_nothing_until_it_has_ended(outage: Outage, superuser: asyncpg.Connection) -> None:
    for _ in range(3):
        await outage.park()
    await superuser.execute(DUE)
    probe = await release_due(outage.database)
    assert len(probe) == 1
    assert await release_due(outage.database) == []


async def test_each_answer_lets_more_go(outage: Outage, superuser: asyncpg.Connection) -> None:
    claims = {claim.job_id: claim for _, claim in [await outage.park() for _ in range(12)]}
    await superuser.execute(DUE)
    waves = []
    while released := await release_due(outage.database):
        waves.append(len(released))
        for job in released:
            await outage.recorder.record(await outage.replay(claims[job.job_id]), ANSWER)
    assert waves == [1, 2, 6, 3]
    assert await superuser.fetchval("select count(*) from failed_requests where state = 'answered'") == 12


async def test_a_failed_probe_waits_for_the_next_interval(outage: Outage, superuser: asyncpg.Connection) -> None:
    _, claim = await outage.park()
    await superuser.execute(DUE)
    await release_due(outage.database)
    await outage.park(await outage.replay(claim))
    assert await release_due(outage.database) == []
    pulse = await outage.read_pulse()
    assert pulse.seconds_since_parking is not None
    assert pulse.seconds_since_parking < PROBE_INTERVAL_SECONDS


@pytest.mark.parametrize(("outcome", "state"), [(ANSWER, "answered"), (FAILURE, "discarded")])
async def test_the_end_of_the_job_settles_it(
    outage: Outage, superuser: asyncpg.Connection, outcome: Any, state: str
) -> None:
    _, claim = await outage.park()
    await superuser.execute(DUE)
    await outage.release(1)
    await outage.recorder.record(await outage.replay(claim), outcome)
    assert await superuser.fetchval("select state from failed_requests") == state


async def test_the_pulse_of_an_empty_ledger(outage: Outage) -> None:
    assert await outage.read_pulse() == DrainPulse(0, 0, None, None)


async def test_the_pulse_counts_what_happened_lately(outage: Outage, superuser: asyncpg.Connection) -> None:
    for _ in range(4):
        await outage.park()
    set_state = """
        update failed_requests set state = $1, updated_at = now() - make_interval(secs => $2)
        where id = (select id from failed_requests where state = 'parked' limit 1)
    """
    for state, age in [("answered", 10.0), ("answered", 100.0), ("replaying", 1.0)]:
        await superuser.execute(set_state, state, age)
    pulse = await outage.read_pulse()
    assert (pulse.replaying, pulse.answered_lately) == (1, 1)
    assert pulse.seconds_since_answer == pytest.approx(10, abs=2)
    assert pulse.seconds_since_parking == pytest.approx(0, abs=2)


@pytest.mark.parametrize(
    ("evidence", "kept"),
    [
        ("plain", "plain"),
        ("", ""),
        (b"\xff\x00", "b'\\xff\\x00'"),
        ("a\x00b", "a\\x00b"),
        ("\ud800", "\\ud800"),
        ({"a": [None, float("nan")]}, "{'a': [None, nan]}"),
        (None, "None"),
        ("x" * 10_000_000, "x" * 10_000),
        (["\x00\ud800"] * 9, "['\\x00\\ud800', "),
    ],
    ids=range(9),
)
async def test_anything_can_be_evidence(
    database: Database, superuser: asyncpg.Connection, evidence: object, kept: str
) -> None:
    error = InputError("message", "is not JSON", "send JSON")
    async with database.as_system() as connection:
        await store.keep_rejected(connection, task_id="task-1", error=error, evidence=evidence)
    row = await superuser.fetchrow("select task_id, error ->> 'problem' as problem, evidence from rejected_messages")
    assert (row["task_id"], row["problem"]) == ("task-1", "is not JSON")
    assert row["evidence"].startswith(kept)
    assert len(row["evidence"]) <= 10_000
