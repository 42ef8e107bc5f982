"""The walk of one job, from a delivery to its outcome, on a real ledger and a pool that follows a script."""

import asyncio
import itertools
from collections.abc import Callable

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from llm_pool.types import ChatMessage
from orchestrator.agents.catalog import DEFAULT_PROFILE, AgentProfile, TenantProfile, save_tenants
from orchestrator.agents.runner import Runner
from orchestrator.failed_requests.replay import release_due
from orchestrator.jobs.deliveries import KnownJob, NewMessage
from orchestrator.jobs.lifecycle import JobState
from orchestrator.outcomes import POLITE_REPLY, Cancelled, Failed, HandledElsewhere, Parked, RetryLater, Succeeded
from shared.database import Database
from shared.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError, NotFoundError, RunCrashedError
from tests.builders import PARKING_ERRORS, build_attempt, build_message
from tests.fakes.scripted_pool import ScriptedPool
from tests.ledger import Jobs, count

MakeRunner = Callable[[ScriptedPool], Runner]


def deliver(task_id: str = "task-1", **fields: object) -> NewMessage:
    return NewMessage(build_message(**fields), task_id)


async def test_a_message_is_answered(make_runner: MakeRunner, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    pool = ScriptedPool("fine ü 😀")
    outcome = await make_runner(pool).handle(deliver(content="how are you?"))
    assert isinstance(outcome, Succeeded)
    assert outcome.result["content"] == "fine ü 😀"
    job = await jobs.find(await superuser.fetchval("select id from jobs"))
    assert (job.state, job.result, job.run) == (JobState.SUCCEEDED, outcome.result, 1)
    assert await count(superuser, "attempts") == 1
    (asked,) = pool.asked
    assert (asked.model, asked.tenant_id) == ("quality", "default")
    assert asked.messages[-1] == ChatMessage("user", "how are you?")
    assert "Your name is Robin." in asked.messages[0].content


async def test_a_job_that_has_its_row_is_run(make_runner: MakeRunner, jobs: Jobs) -> None:
    job_id = await jobs.add(build_message(), "task-9")
    assert job_id
    outcome = await make_runner(ScriptedPool()).handle(KnownJob("default", job_id, "task-9"))
    assert isinstance(outcome, Succeeded)
    assert (await jobs.find(job_id)).task_id == "task-9"


async def test_a_delivery_of_no_job_changes_nothing(make_runner: MakeRunner) -> None:
    pool = ScriptedPool()
    assert await make_runner(pool).handle(KnownJob("default", uuid7(), "task-1")) == HandledElsewhere()
    assert pool.asked == []


async def test_an_unknown_tenant_is_told_and_nothing_stored(
    make_runner: MakeRunner, superuser: asyncpg.Connection
) -> None:
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        await make_runner(ScriptedPool()).handle(deliver(tenant_id="nobody"))
    assert await count(superuser, "jobs") == 0


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"agent_id": "nobody"}, "agent_id", "no agent 'nobody' in tenant 'default'"),
        ({"agent_id": "asleep"}, "agent_id", "agent 'asleep' is not active"),
    ],
)
async def test_an_agent_that_cannot_answer_fails_the_job(
    make_runner: MakeRunner, database: Database, jobs: Jobs, fields: dict[str, str], field: str, problem: str
) -> None:
    asleep = AgentProfile("asleep", "Zoe", "a sleeper", is_active=False)
    await save_tenants(database, [TenantProfile("default", "Default", "assistant", (*DEFAULT_PROFILE.agents, asleep))])
    pool = ScriptedPool()
    outcome = await make_runner(pool).handle(deliver(**fields))
    assert isinstance(outcome, Failed)
    assert (outcome.result["error"]["field"], outcome.result["error"]["problem"]) == (field, problem)
    assert outcome.result["content"] == POLITE_REPLY
    assert pool.asked == []


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("model", "there is no model group 'x'", "use fast"),
        LLMInvalidRequestError("bad", attempts=[build_attempt(error_type="T")]),
    ],
)
async def test_what_the_pool_refuses_fails_the_job(
    make_runner: MakeRunner, superuser: asyncpg.Connection, error: Exception
) -> None:
    outcome = await make_runner(ScriptedPool(error)).handle(deliver(model="x"))
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.error_message) == (type(error).__name__, str(error))
    assert await superuser.fetchval("select state from jobs") == "failed"
    assert await count(superuser, "attempts") == len(getattr(error, "attempts", ()))
    assert await count(superuser, "failed_requests") == 0


@pytest.mark.parametrize("kind", PARKING_ERRORS)
async def test_an_outage_parks_the_job_politely_and_keeps_what_was_paid(
    make_runner: MakeRunner, superuser: asyncpg.Connection, kind: type[LLMError]
) -> None:
    pool = ScriptedPool(kind("down", attempts=[build_attempt("a", error_type="T"), build_attempt("b", error_type="T")]))
    outcome = await make_runner(pool).handle(deliver())
    assert isinstance(outcome, Parked)
    assert outcome.result
    request_id = await superuser.fetchval(
        "select id from failed_requests where state = 'parked' and error_type = $1", kind.__name__
    )
    assert (outcome.result["content"], outcome.result["failed_request_id"]) == (POLITE_REPLY, str(request_id))
    assert await count(superuser, "attempts") == 2
    assert tuple(await superuser.fetchrow("select state, crash_count from jobs")) == ("parked", 0)


async def test_when_a_provider_is_back_the_replay_answers_the_same_task(
    make_runner: MakeRunner, database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    runner = make_runner(ScriptedPool(LLMUnavailableError(), "fine"))
    assert isinstance(await runner.handle(deliver("task-1")), Parked)
    await superuser.execute("update failed_requests set next_try_at = now(), updated_at = now() - interval '9 seconds'")
    (job,) = await release_due(database)
    outcome = await runner.handle(KnownJob(job.tenant_id, job.job_id, job.task_id))
    assert isinstance(outcome, Succeeded)
    assert job.task_id == "task-1"
    assert tuple(await superuser.fetchrow("select state, parks from failed_requests")) == ("answered", 1)
    ended = await jobs.find(job.job_id)
    assert (ended.state, ended.run, ended.result) == (JobState.SUCCEEDED, 2, outcome.result)


async def test_a_surprise_leaves_the_job_to_its_lease(make_runner: MakeRunner, superuser: asyncpg.Connection) -> None:
    with pytest.raises(RunCrashedError, match="KeyError in run 1"):
        await make_runner(ScriptedPool(KeyError("surprise"))).handle(deliver())
    assert await superuser.fetchval("select state from jobs join leases on id = job_id") == "running"
    assert await superuser.fetchval("select count(*) from runs where ended_at is null") == 1


async def test_a_worker_that_stops_hands_its_jobs_back(
    make_runner: MakeRunner, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    pool = ScriptedPool(is_held=True)
    runner = make_runner(pool)
    handling = [asyncio.create_task(runner.handle(deliver())) for _ in range(3)]
    await pool.is_thinking(3)
    assert runner.hand_back_all() == 3
    outcomes = await asyncio.gather(*handling)
    assert all(isinstance(outcome, RetryLater) and outcome.job for outcome in outcomes)
    rows = await superuser.fetch("select distinct state, crash_count from jobs")
    assert [tuple(row) for row in rows] == [("queued", 0)]
    assert await count(superuser, "leases") == 0
    assert await jobs.claim(outcomes[0].job.job_id)


async def test_a_cancelled_job_is_no_longer_asked_for(
    make_runner: MakeRunner, database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    pool = ScriptedPool(is_held=True)
    runner = make_runner(pool)
    handling, going_on = [asyncio.create_task(runner.handle(deliver())) for _ in range(2)]
    await pool.is_thinking(2)
    job_id = await superuser.fetchval("select id from jobs order by id limit 1")
    assert await jobs.cancel(job_id)
    assert runner.interrupt([job_id, uuid7()]) == 1
    outcome = await handling
    assert isinstance(outcome, Cancelled)
    assert outcome.result == (await jobs.find(job_id)).result
    assert not going_on.done()
    runner.hand_back_all()
    await going_on


async def test_an_interrupted_job_that_nobody_cancelled_goes_back_to_the_queue(
    make_runner: MakeRunner, superuser: asyncpg.Connection
) -> None:
    pool = ScriptedPool(is_held=True)
    runner = make_runner(pool)
    handling = asyncio.create_task(runner.handle(deliver()))
    await pool.is_thinking(1)
    runner.interrupt([await superuser.fetchval("select id from jobs")])
    assert isinstance(await handling, RetryLater)


async def test_a_job_claimed_while_the_worker_stops_is_handed_back_too(
    make_runner: MakeRunner, superuser: asyncpg.Connection
) -> None:
    pool = ScriptedPool()
    runner = make_runner(pool)
    runner.hand_back_all()
    assert isinstance(await runner.handle(deliver()), RetryLater)
    assert pool.asked == []
    assert await superuser.fetchval("select state from jobs") == "queued"


async def test_the_same_message_twice_at_once_is_one_call(
    make_runner: MakeRunner, superuser: asyncpg.Connection
) -> None:
    pool = ScriptedPool(is_held=True)
    runner, message = make_runner(pool), build_message(id="m-1")
    handling = [asyncio.create_task(runner.handle(NewMessage(message, f"task-{n}"))) for n in range(10)]
    joined = [await first for first in itertools.islice(asyncio.as_completed(handling), 9)]
    assert joined == 9 * [HandledElsewhere()]
    pool.released.set()
    (answered,) = [outcome for outcome in await asyncio.gather(*handling) if isinstance(outcome, Succeeded)]
    assert len(pool.asked) == 1
    # Nine wait, and the one that answers is told of each.
    assert len(answered.waiting_tasks) == 9


async def test_a_message_sent_again_later_has_the_same_answer(make_runner: MakeRunner) -> None:
    pool = ScriptedPool("first", "second")
    runner, message = make_runner(pool), build_message(id="m-1")
    first = await runner.handle(NewMessage(message, "task-1"))
    again = await runner.handle(NewMessage(message, "task-2"))
    assert isinstance(again, Succeeded)
    assert isinstance(first, Succeeded)
    assert again.result == first.result
    assert len(pool.asked) == 1
