"""Cancelling a job in each of its states, and against an answer at the same moment."""

import asyncio

import asyncpg
import pytest

from orchestrator.cancelling import Canceller
from orchestrator.jobs.deliveries import NewMessage
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import JobRecord
from orchestrator.outcomes import Cancelled, Parked
from shared.database import Database
from tests.builders import build_message
from tests.fakes.postgres_gate import PostgresGate
from tests.ledger import ANSWERED, FAILED, HANDED_BACK, PARKED, Jobs, count
from tests.running import build_recorder

STEPS: dict[str, Ending | None] = {"queued": HANDED_BACK, "running": None, "parked": PARKED}


@pytest.fixture
def canceller(database: Database, broker: str) -> Canceller:
    return Canceller(database)


@pytest.mark.parametrize("state", STEPS)
async def test_a_job_that_is_not_finished_ends_cancelled(
    canceller: Canceller, jobs: Jobs, superuser: asyncpg.Connection, state: str
) -> None:
    claim = await jobs.start()
    if ending := STEPS[state]:
        await jobs.record(claim, ending)
    told = await canceller.cancel("default", claim.job_id)
    job = await jobs.find(claim.job_id)
    assert told == job
    assert (job.state, job.result and job.result["state"]) == (JobState.CANCELLED, "cancelled")
    assert job.result
    assert job.result["error"] == {"type": "Cancelled", "message": f"cancelled while it was {state}"}
    assert job.finished_at
    assert await jobs.claim(claim.job_id) is None
    assert await count(superuser, "leases") == 0
    assert await superuser.fetchval("select count(*) from runs where ended_at is null") == 0


@pytest.mark.parametrize("ending", [ANSWERED, FAILED])
async def test_a_finished_job_stays_as_it_is(canceller: Canceller, jobs: Jobs, ending: Ending) -> None:
    claim = await jobs.start()
    await jobs.record(claim, ending)
    ended = await jobs.find(claim.job_id)
    assert await canceller.cancel("default", claim.job_id) == ended
    assert await jobs.find(claim.job_id) == ended


async def test_an_answer_that_comes_too_late_is_dropped_and_its_cost_kept(
    canceller: Canceller, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    await canceller.cancel("default", claim.job_id)
    assert not await jobs.record(claim, ANSWERED)
    assert (await jobs.find(claim.job_id)).state is JobState.CANCELLED
    assert await superuser.fetchval("select cost_usd > 0 from attempts")
    assert await superuser.fetchval("select outcome from runs") == "cancelled"


async def test_cancelling_against_an_answer_ends_in_exactly_one_of_them(
    canceller: Canceller, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    outcomes = set()
    for number in range(40):
        claim = await jobs.start()

        async def answer(delay: float = (number - 20) * 0.001) -> bool:
            await asyncio.sleep(max(0.0, delay))
            return await jobs.record(claim, ANSWERED)  # noqa: B023 (awaited before the next round)

        async def cancel(delay: float = (20 - number) * 0.001) -> JobRecord:
            await asyncio.sleep(max(0.0, delay))
            return await canceller.cancel("default", claim.job_id)  # noqa: B023 (likewise)

        told, was_answered = await asyncio.gather(cancel(), answer())
        assert (told.state is JobState.SUCCEEDED) == was_answered
        outcomes.add((await jobs.find(claim.job_id)).state)
    assert await count(superuser, "results") == 40
    assert outcomes == {JobState.CANCELLED, JobState.SUCCEEDED}, "the race was never close"


async def test_a_parked_job_leaves_the_drain(
    canceller: Canceller, jobs: Jobs, database: Database, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    await build_recorder(database).record(claim, Parked("T", "m"))
    await canceller.cancel("default", claim.job_id)
    assert await superuser.fetchval("select state from failed_requests") == "discarded"


async def test_whoever_joins_a_cancelled_job_is_told(canceller: Canceller, jobs: Jobs, database: Database) -> None:
    claim = await jobs.start()
    await jobs.wait_for(claim.job_id, "task-2")
    await canceller.cancel("default", claim.job_id)
    async with database.as_tenant("default") as connection:
        joined = await build_recorder(database).join(connection, claim.job_id, "task-3")
    assert isinstance(joined, Cancelled)
    assert joined.waiting_tasks == ("task-2",)


async def test_a_revoked_task_ends_its_job(canceller: Canceller, jobs: Jobs) -> None:
    claim, other = await jobs.start(), await jobs.add(build_message(), task_id="task-2")
    assert other
    await canceller.cancel_tasks(["task-1", "unknown"])
    assert (await state_of(jobs, claim.job_id), await state_of(jobs, other)) == ("cancelled", "queued")


async def test_a_revoke_outlives_an_outage_of_the_database(
    gated: Database, gate: PostgresGate, broker: str, jobs: Jobs
) -> None:
    claim = await jobs.start()
    await gate.shut()
    revoking = asyncio.create_task(Canceller(gated).cancel_tasks(["task-1"]))
    await asyncio.sleep(0.05)
    await gate.open()
    await asyncio.wait_for(revoking, 5)
    assert await state_of(jobs, claim.job_id) == "cancelled"


async def test_a_message_revoked_before_it_was_a_job_is_one_that_is_cancelled(
    canceller: Canceller, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    message = build_message()
    for _ in range(2):
        await canceller.cancel_message(NewMessage(message, "task-1"))
    assert await superuser.fetchval("select string_agg(state, ' ') from jobs") == "cancelled"
    assert await jobs.add(message) is None, "sent again, it is the same job"


async def test_to_revoke_a_second_task_leaves_the_job_to_the_first(canceller: Canceller, jobs: Jobs) -> None:
    message = build_message()
    job_id = await jobs.add(message, task_id="task-1")
    assert job_id
    await canceller.cancel_tasks(["task-2"])
    await canceller.cancel_message(NewMessage(message, "task-2"))
    assert await state_of(jobs, job_id) == "queued"


async def state_of(jobs: Jobs, job_id: object) -> str:
    job: JobRecord = await jobs.find(job_id)  # type: ignore[arg-type] # an id, as the callers know
    return job.state.value
