"""Many jobs at once: keeping leases, and finding what got stuck."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from orchestrator.jobs import sweeps
from orchestrator.jobs.lifecycle import MAX_CRASHES, JobState
from orchestrator.jobs.store import Claim
from orchestrator.reconcile import UNDELIVERED_SECONDS, reconcile
from shared.database import Database
from tests.builders import build_message
from tests.ledger import ANSWERED, FAILED, PARKED, Jobs, count

RUN_OUT = "update jobs set lease_until = now() - interval '1 second' where state = 'running'"
LONG_AGO = f"update jobs set dispatched_at = now() - make_interval(secs => {UNDELIVERED_SECONDS + 1})"


async def renew(database: Database, *runs: tuple[UUID, int]) -> frozenset[UUID]:
    async with database.as_system() as connection:
        return await sweeps.renew_leases(connection, runs, lease_seconds=30)


async def crash(database: Database, jobs: Jobs, superuser: asyncpg.Connection, claim: Claim) -> Claim | None:
    """The worker dies, the sweep finds it, another takes the job if it may."""
    await superuser.execute(RUN_OUT)
    await reconcile(database)
    return await jobs.claim(claim.job_id)


async def test_a_beat_renews_its_own_runs_only(database: Database, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    mine, lost, ended, others = [await jobs.start() for _ in range(4)]
    await superuser.execute("update jobs set run = 2 where id = $1", lost.job_id)
    await jobs.record(ended, ANSWERED)
    await superuser.execute("update jobs set lease_until = now() where state = 'running'")
    kept = await renew(database, *((claim.job_id, claim.run) for claim in (mine, lost, ended)))
    assert kept == {mine.job_id}
    renewed = await superuser.fetch("select id from jobs where lease_until > now() + interval '25 seconds'")
    assert [row["id"] for row in renewed] == [mine.job_id]
    assert others.job_id not in kept


async def test_a_beat_without_runs_is_harmless(database: Database) -> None:
    assert await renew(database) == frozenset()


async def test_beats_and_claims_stay_heap_only(database: Database, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    job_id = await jobs.add(build_message())
    assert job_id
    claim = await jobs.claim(job_id)
    assert claim
    for _ in range(20):
        assert await renew(database, (claim.job_id, claim.run))
    # Sessions report what they did when they end.
    await database.aclose()
    assert await changes_of_jobs(superuser, at_least=21) == (21, 21)


async def changes_of_jobs(superuser: asyncpg.Connection, at_least: int) -> tuple[int, int]:
    """All updates, and how many of them touched no index."""
    query = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'jobs'"
    row = await superuser.fetchrow(query)
    for _ in range(100):
        if row["n_tup_upd"] >= at_least:
            break
        await asyncio.sleep(0.02)
        row = await superuser.fetchrow(query)
    return row["n_tup_upd"], row["n_tup_hot_upd"]


async def test_a_job_whose_worker_died_is_queued_again(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    await superuser.execute(RUN_OUT)
    stuck = await reconcile(database)
    assert [(job.job_id, job.tenant_id, job.task_id) for job in stuck.waiting] == [(claim.job_id, "default", "task-1")]
    assert stuck.quarantined == []
    row: Any = await superuser.fetchrow("select state, crash_count, worker, lease_until, finished_at from jobs")
    assert tuple(row) == ("queued", 1, None, None, None)
    assert await superuser.fetchval("select outcome from runs where ended_at is not null") == "expired"
    assert not await jobs.record(claim, ANSWERED)
    assert await superuser.fetchval("select outcome from runs") == "expired"


async def test_a_lease_that_has_not_run_out_is_left_alone(database: Database, jobs: Jobs) -> None:
    claim = await jobs.start()
    assert (await reconcile(database)).waiting == []
    assert await jobs.record(claim, ANSWERED)


async def test_the_fifth_crash_quarantines_with_a_result(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim: Claim | None = await jobs.start()
    for _ in range(MAX_CRASHES - 1):
        assert claim
        claim = await crash(database, jobs, superuser, claim)
    assert claim
    assert claim.run == MAX_CRASHES
    await superuser.execute(RUN_OUT)
    await jobs.wait_for(claim.job_id, "task-2")
    await superuser.execute(
        """insert into failed_requests (id, tenant_id, job_id, state, parks, next_try_at, error_type, error_message)
        select id, tenant_id, id, 'replaying', 1, now(), 'T', 'm' from jobs"""
    )
    stuck = await reconcile(database)
    assert stuck.waiting == []
    assert await superuser.fetchval("select state from failed_requests") == "discarded", "the drain would wait for it"
    (quarantined,) = stuck.quarantined
    job = await jobs.find(claim.job_id)
    assert (job.state, job.result) == (JobState.QUARANTINED, quarantined.result)
    assert quarantined.task_ids == (claim.task_id, "task-2")
    assert job.finished_at
    assert await jobs.claim(claim.job_id) is None
    assert await superuser.fetchval("select count(*) from runs where outcome = 'expired'") == MAX_CRASHES


async def test_an_outage_between_crashes_costs_nothing(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim: Claim | None = await jobs.start()
    for _ in range(MAX_CRASHES + 1):
        assert claim
        await jobs.record(claim, PARKED)
        await superuser.execute("update jobs set state = 'queued'")
        claim = await jobs.claim(claim.job_id)
    assert await superuser.fetchval("select crash_count from jobs") == 0


async def test_a_job_whose_message_was_lost_is_sent_again(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    lost = await jobs.add(build_message())
    await superuser.execute(LONG_AGO)
    fresh = await jobs.add(build_message())
    assert [job.job_id for job in (await reconcile(database)).waiting] == [lost]
    # It counts as sent from now.
    assert (await reconcile(database)).waiting == []
    assert fresh


@pytest.mark.parametrize("ending", [ANSWERED, FAILED, PARKED])
async def test_what_waits_for_no_worker_is_not_sent_again(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection, ending: Any
) -> None:
    await jobs.record(await jobs.start(), ending)
    await superuser.execute(LONG_AGO)
    assert (await reconcile(database)).waiting == []


async def test_two_sweeps_at_once_take_each_job_once(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    running = {(await jobs.start()).job_id for _ in range(20)}
    queued = {await jobs.add(build_message()) for _ in range(20)}
    await superuser.execute(RUN_OUT)
    await superuser.execute(LONG_AGO + " where state = 'queued'")
    sweeps_found = await asyncio.gather(*(reconcile(database) for _ in range(3)))
    found = [job.job_id for stuck in sweeps_found for job in stuck.waiting]
    assert sorted(found) == sorted(running | queued)
    assert await superuser.fetchval("select max(crash_count) from jobs") == 1


async def test_a_sweep_beside_a_completion_leaves_one_of_them_the_winner(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    for _ in range(20):
        claim = await jobs.start()
        await superuser.execute(RUN_OUT)
        recorded, stuck = await asyncio.gather(jobs.record(claim, ANSWERED), reconcile(database))
        assert recorded != (claim.job_id in [job.job_id for job in stuck.waiting])
    assert await count(superuser, "results") == await superuser.fetchval(
        "select count(*) from jobs where state = 'succeeded'"
    )
