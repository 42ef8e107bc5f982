"""A worker that was suspended past its lease may find a job again that it still has in hand, under an older run."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import asyncpg

from orchestrator.agents.runner import Runner
from orchestrator.jobs.deliveries import KnownJob
from orchestrator.outcomes import Cancelled, Succeeded
from tests.builders import build_message
from tests.fakes.scripted_pool import ScriptedPool
from tests.ledger import Jobs

MakeRunner = Callable[[ScriptedPool], Runner]


async def claim_twice(
    pool: ScriptedPool, runner: Runner, jobs: Jobs, superuser: asyncpg.Connection
) -> tuple[UUID, list[asyncio.Task[object]]]:
    """Two runs of one job, both asking."""
    job_id = await jobs.add(build_message(), "task-1")
    first = asyncio.create_task(runner.handle(KnownJob("default", job_id, "task-1")))
    await pool.is_thinking(1)
    await superuser.execute("delete from leases")
    await superuser.execute("update jobs set state = 'queued'")
    second = asyncio.create_task(runner.handle(KnownJob("default", job_id, "task-1")))
    await pool.is_thinking(2)
    return job_id, [first, second]


async def test_both_runs_end_and_the_later_one_answers(
    make_runner: MakeRunner, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    pool = ScriptedPool(is_held=True)
    _, runs = await claim_twice(pool, make_runner(pool), jobs, superuser)
    pool.released.set()
    outcomes = await asyncio.gather(*runs)
    assert isinstance(outcomes[1], Succeeded)
    assert await superuser.fetchval("select run from results") == 2


async def test_a_cancelled_job_is_no_longer_asked_for_by_either(
    make_runner: MakeRunner, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    pool = ScriptedPool(is_held=True)
    runner = make_runner(pool)
    job_id, runs = await claim_twice(pool, runner, jobs, superuser)
    assert await jobs.cancel(job_id)
    assert runner.interrupt([job_id]) == 2
    assert all(isinstance(outcome, Cancelled) for outcome in await asyncio.gather(*runs))
