"""Further tasks that were sent for the same message: each gets the answer, whoever comes first."""

import asyncio
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from orchestrator.failed_requests.replay import send_back
from orchestrator.group_commit import GroupCommit
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.store import Claim
from orchestrator.outcomes import Failed, HandledElsewhere, Outcome, Parked, Succeeded
from orchestrator.recorder import Recorder
from shared.database import Database
from tests.builders import build_message
from tests.ledger import ANSWERED, FAILED, HANDED_BACK, OVERTAKE, PARKED, Jobs

ANSWER = Succeeded({"content": "fine"})
FAILURE = Failed({"content": "sorry", "error": {"type": "T", "message": "m"}})
OUTAGE = Parked("T", "m")


@pytest.fixture
def recorder(database: Database) -> Recorder:
    return Recorder(database, GroupCommit(database, worker="w-1", lease_seconds=30))


async def join(database: Database, recorder: Recorder, job_id: UUID | None, task_id: str) -> Outcome:
    async with database.as_tenant("default") as connection:
        return await recorder.join(connection, job_id, task_id)


async def test_a_task_waits_once(jobs: Jobs) -> None:
    claim = await jobs.start()
    for _ in range(2):
        await jobs.wait_for(claim.job_id, "task-2")
    assert await jobs.find_waiting_tasks(claim.job_id) == ("task-2",)


async def test_the_jobs_own_task_does_not_wait_for_itself(jobs: Jobs) -> None:
    claim = await jobs.start()
    await jobs.wait_for(claim.job_id, claim.task_id)
    assert await jobs.find_waiting_tasks(claim.job_id) == ()


@pytest.mark.parametrize("ending", [ANSWERED, FAILED])
async def test_nobody_waits_for_a_finished_job(jobs: Jobs, ending: Ending) -> None:
    claim = await jobs.start()
    await jobs.record(claim, ending)
    await jobs.wait_for(claim.job_id, "task-2")
    assert await jobs.find_waiting_tasks(claim.job_id) == ()


@pytest.mark.parametrize("outcome", [ANSWER, FAILURE, OUTAGE])
async def test_who_ends_a_run_is_told_who_waits(jobs: Jobs, recorder: Recorder, outcome: Outcome) -> None:
    claim = await jobs.start()
    await jobs.wait_for(claim.job_id, "task-2")
    recorded = await recorder.record(claim, outcome)
    assert recorded.waiting_tasks == ("task-2",)


@pytest.mark.parametrize("outcome", [ANSWER, FAILURE, OUTAGE])
async def test_a_task_that_comes_while_the_outcome_is_written_is_never_lost(
    database: Database, jobs: Jobs, recorder: Recorder, outcome: Outcome
) -> None:
    async def race(claim: Claim, delay_seconds: float) -> None:
        async def come_later() -> Outcome:
            await asyncio.sleep(delay_seconds)
            return await join(database, recorder, claim.job_id, "task-2")

        recorded, joined = await asyncio.gather(recorder.record(claim, outcome), come_later())
        was_told = "task-2" in recorded.waiting_tasks
        learned = type(joined) is type(outcome)
        assert was_told or learned, (recorded, joined)

    for number in range(60):
        await race(await jobs.start(), delay_seconds=number % 20 * 0.0004)


async def test_joining_no_job(database: Database, recorder: Recorder) -> None:
    assert await join(database, recorder, None, "task-2") == HandledElsewhere()
    assert await join(database, recorder, uuid7(), "task-2") == HandledElsewhere()


async def test_joining_a_job_that_waits_or_runs(database: Database, jobs: Jobs, recorder: Recorder) -> None:
    queued = await jobs.add(build_message())
    claim = await jobs.start()
    for job_id in (queued, claim.job_id):
        assert job_id
        assert await join(database, recorder, job_id, "task-2") == HandledElsewhere()
        assert await jobs.find_waiting_tasks(job_id) == ("task-2",)


async def test_joining_a_job_that_was_handed_back(database: Database, jobs: Jobs, recorder: Recorder) -> None:
    claim = await jobs.start()
    await jobs.record(claim, HANDED_BACK)
    assert await join(database, recorder, claim.job_id, "task-2") == HandledElsewhere()


async def test_joining_a_parked_job_tells_where_it_waits(database: Database, jobs: Jobs, recorder: Recorder) -> None:
    claim = await jobs.start()
    parked = await recorder.record(claim, OUTAGE)
    assert isinstance(parked, Parked)
    joined = await join(database, recorder, claim.job_id, "task-2")
    assert isinstance(joined, Parked)
    assert joined.result
    assert parked.result
    assert joined.result["failed_request_id"] == parked.result["failed_request_id"]
    assert joined.waiting_tasks == ("task-2",)


@pytest.mark.parametrize(("outcome", "kind"), [(ANSWER, Succeeded), (FAILURE, Failed)])
async def test_joining_a_finished_job_is_having_its_result(
    database: Database, jobs: Jobs, recorder: Recorder, outcome: Outcome, kind: type
) -> None:
    claim = await jobs.start()
    await jobs.wait_for(claim.job_id, "task-2")
    await recorder.record(claim, outcome)
    joined = await join(database, recorder, claim.job_id, "task-3")
    assert (type(joined), joined.result, joined.waiting_tasks) == (kind, outcome.result, ("task-2",))


async def test_joining_a_quarantined_job_is_a_failure(
    database: Database, jobs: Jobs, recorder: Recorder, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    body = '{"error": {"type": "Quarantined", "message": "5 runs"}}'
    await superuser.execute("update jobs set state = 'quarantined', finished_at = now()")
    await superuser.execute("insert into results values ($1, 'default', 1, $2)", claim.job_id, body)
    joined = await join(database, recorder, claim.job_id, "task-2")
    assert isinstance(joined, Failed)
    assert joined.error_type == "Quarantined"


async def test_a_stale_run_learns_what_the_job_came_to(
    jobs: Jobs, recorder: Recorder, superuser: asyncpg.Connection
) -> None:
    stale = await jobs.start()
    await superuser.execute(OVERTAKE)
    current = await jobs.claim(stale.job_id)
    assert current
    await recorder.record(current, ANSWER)
    recorded = await recorder.record(stale, FAILURE)
    assert isinstance(recorded, Succeeded)
    assert recorded.result == ANSWER.result


async def test_a_job_that_another_run_parked_is_settled_by_its_answer(
    jobs: Jobs, recorder: Recorder, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    await recorder.record(claim, OUTAGE)
    assert PARKED.state == (await jobs.find(claim.job_id)).state
    await superuser.execute("update jobs set state = 'queued'")
    replay = await jobs.claim(claim.job_id)
    assert replay
    await recorder.record(replay, ANSWER)
    assert await superuser.fetchval("select state from failed_requests") == "answered"


async def test_a_job_that_another_task_claims_is_told_to_both_whoever_ends_it(
    jobs: Jobs, recorder: Recorder, database: Database
) -> None:
    message = build_message()
    first = await jobs.add_and_claim(message, "task-1")
    assert first
    await jobs.record(first, HANDED_BACK)
    second = await jobs.add_and_claim(message, "task-2")
    assert second
    parked = await recorder.record(second, OUTAGE)
    assert isinstance(parked, Parked)
    assert set(parked.waiting_tasks) == {"task-1", "task-2"}
    async with database.as_system() as connection:
        await send_back(connection, [first.job_id])
    third = await jobs.claim(first.job_id)
    assert third
    answered = await recorder.record(third, ANSWER)
    assert isinstance(answered, Succeeded)
    assert set(answered.waiting_tasks) == {"task-1", "task-2"}
