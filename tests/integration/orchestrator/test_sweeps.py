"""Many jobs at once: keeping leases, and finding what got stuck."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from orchestrator.jobs import sweeps
from orchestrator.jobs.lifecycle import MAX_CRASHES, JobState
from orchestrator.jobs.store import Claim
from orchestrator.liveness.process_names import build_worker_name
from orchestrator.reconcile import UNDELIVERED_SECONDS, Stuck, free_predecessors, reconcile
from shared.database import Database
from tests.builders import build_message
from tests.ledger import ANSWERED, FAILED, PARKED, Jobs, count

RUN_OUT = "update leases set lease_until = now() - interval '1 second'"
GAP = "update sweeps set ran_at = now() - interval '1 minute', calm_since = now() - interval '1 hour'"
LONG_AGO = f"update jobs set dispatched_at = now() - make_interval(secs => {UNDELIVERED_SECONDS + 1})"


async def sweep(database: Database, *, lease_seconds: float = 0.0, backlog: int | None = 0) -> Stuck:
    """On a broker that holds nothing, unless said otherwise; leases of no length need no calm before."""
    return await reconcile(database, lease_seconds=lease_seconds, backlog=backlog)


async def renew(database: Database, *runs: tuple[UUID, int]) -> frozenset[UUID]:
    async with database.as_system() as connection:
        return await sweeps.renew_leases(connection, runs, lease_seconds=30)


async def crash(database: Database, jobs: Jobs, superuser: asyncpg.Connection, claim: Claim) -> Claim | None:
    """The worker dies, the sweep finds it, another takes the job if it may."""
    await superuser.execute(RUN_OUT)
    await sweep(database)
    return await jobs.claim(claim.job_id)


async def test_a_beat_renews_its_own_runs_only(database: Database, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    mine, lost, ended, others = [await jobs.start() for _ in range(4)]
    await superuser.execute("update leases set run = 2 where job_id = $1", lost.job_id)
    await jobs.record(ended, ANSWERED)
    await superuser.execute("update leases set lease_until = now()")
    kept = await renew(database, *((claim.job_id, claim.run) for claim in (mine, lost, ended)))
    assert kept == {mine.job_id}
    renewed = await superuser.fetch("select job_id from leases where lease_until > now() + interval '25 seconds'")
    assert [row["job_id"] for row in renewed] == [mine.job_id]
    assert others.job_id not in kept


async def test_only_a_workers_successor_ends_its_leases_early(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    """Whoever bears this process's own name is one before it."""
    left, others = [await jobs.start() for _ in range(2)]
    await superuser.execute("update leases set worker = $1 where job_id = $2", build_worker_name(), left.job_id)
    await free_predecessors(database)
    assert [job.job_id for job in (await sweep(database)).waiting] == [left.job_id]
    assert (await jobs.find(others.job_id)).state is JobState.RUNNING
    again = await jobs.claim(left.job_id)
    assert again
    assert again.crash_count == 1


async def test_a_beat_without_runs_is_harmless(database: Database) -> None:
    assert await renew(database) == frozenset()


async def test_beats_stay_heap_only(database: Database, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    job_id = await jobs.add(build_message())
    assert job_id
    claim = await jobs.claim(job_id)
    assert claim
    for _ in range(20):
        assert await renew(database, (claim.job_id, claim.run))
    # Sessions report what they did when they end.
    await database.aclose()
    assert await changes_of_leases(superuser, at_least=20) == (20, 20)


async def changes_of_leases(superuser: asyncpg.Connection, at_least: int) -> tuple[int, int]:
    """All updates, and how many of them touched no index."""
    query = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'leases'"
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
    stuck = await sweep(database)
    assert [(job.job_id, job.tenant_id, job.task_id) for job in stuck.waiting] == [(claim.job_id, "default", "task-1")]
    assert stuck.quarantined == []
    row: Any = await superuser.fetchrow("select state, crash_count, finished_at from jobs")
    assert tuple(row) == ("queued", 1, None)
    assert await superuser.fetchval("select outcome from runs where ended_at is not null") == "expired"
    assert await count(superuser, "leases") == 0


async def test_a_run_that_was_taken_for_dead_and_reports_gives_its_crash_back(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    await superuser.execute(RUN_OUT)
    await sweep(database)
    for _ in range(2):
        assert not await jobs.record(claim, ANSWERED)
        assert await superuser.fetchval("select outcome from runs") == "stale"
        assert await superuser.fetchval("select crash_count from jobs") == 0


async def test_a_job_that_always_reports_late_is_pardoned_five_times_only(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim: Claim | None = await jobs.start()
    for crashes in (*[0] * MAX_CRASHES, 1, 2):
        assert claim
        await superuser.execute(RUN_OUT)
        await sweep(database)
        await jobs.record(claim, ANSWERED)
        assert await superuser.fetchval("select crash_count from jobs") == crashes
        claim = await jobs.claim(claim.job_id)


async def test_a_lease_that_has_not_run_out_is_left_alone(database: Database, jobs: Jobs) -> None:
    claim = await jobs.start()
    assert (await sweep(database)).waiting == []
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
    stuck = await sweep(database)
    assert stuck.waiting == []
    assert await superuser.fetchval("select state from failed_requests") == "discarded", "the drain would wait for it"
    (quarantined,) = stuck.quarantined
    job = await jobs.find(claim.job_id)
    assert (job.state, job.result) == (JobState.QUARANTINED, quarantined.result)
    assert quarantined.task_ids == (claim.task_id, "task-2")
    assert quarantined.error.startswith("Quarantined: 5 runs ended without an outcome")
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
    assert [job.job_id for job in (await sweep(database)).waiting] == [lost]
    # It counts as sent from now.
    assert (await sweep(database)).waiting == []
    assert fresh


@pytest.mark.parametrize("ending", [ANSWERED, FAILED, PARKED])
async def test_what_waits_for_no_worker_is_not_sent_again(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection, ending: Any
) -> None:
    await jobs.record(await jobs.start(), ending)
    await superuser.execute(LONG_AGO)
    assert (await sweep(database)).waiting == []


async def test_two_sweeps_at_once_take_each_job_once(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    running = {(await jobs.start()).job_id for _ in range(20)}
    queued = {await jobs.add(build_message()) for _ in range(20)}
    await superuser.execute(RUN_OUT)
    await superuser.execute(LONG_AGO + " where state = 'queued'")
    sweeps_found = await asyncio.gather(*(sweep(database) for _ in range(3)))
    found = [job.job_id for stuck in sweeps_found for job in stuck.waiting]
    assert sorted(found) == sorted(running | queued)
    assert await superuser.fetchval("select max(crash_count) from jobs") == 1


async def test_a_sweep_beside_a_completion_leaves_one_of_them_the_winner(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    for _ in range(20):
        claim = await jobs.start()
        await superuser.execute(RUN_OUT)
        recorded, stuck = await asyncio.gather(jobs.record(claim, ANSWERED), sweep(database))
        assert recorded != (claim.job_id in [job.job_id for job in stuck.waiting])
    assert await count(superuser, "results") == await superuser.fetchval(
        "select count(*) from jobs where state = 'succeeded'"
    )


async def test_queued_jobs_that_have_their_messages_are_left_alone(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    oldest, _ = await jobs.add(build_message()), await jobs.add(build_message())
    await superuser.execute(LONG_AGO)
    await superuser.execute("update jobs set dispatched_at = dispatched_at - interval '1 second' where id = $1", oldest)
    assert (await sweep(database, backlog=2)).waiting == []
    assert (await sweep(database, backlog=None)).waiting == [], "the broker could not be asked"
    assert [job.job_id for job in (await sweep(database, backlog=1)).waiting] == [oldest]


@pytest.mark.parametrize("backlog", [100, 10**6])
async def test_behind_more_messages_than_jobs_what_was_overtaken_is_sent_again(
    backlog: int, database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    lost, newer = await jobs.add(build_message()), await jobs.add(build_message())
    assert newer
    await superuser.execute("update jobs set dispatched_at = now() - interval '1 hour' where id = $1", lost)
    await superuser.execute("update jobs set dispatched_at = now() - interval '10 minutes' where id = $1", newer)
    await jobs.start()
    assert (await sweep(database, backlog=backlog)).waiting == [], "one that came from outside tells nothing"
    assert await jobs.claim(newer)
    assert [job.job_id for job in (await sweep(database, backlog=backlog)).waiting] == [lost]


async def test_after_an_outage_each_lease_has_its_length_anew(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await sweep(database)
    claim = await jobs.start()
    await superuser.execute(GAP)
    await superuser.execute(RUN_OUT)
    for _ in range(2):
        assert (await sweep(database, lease_seconds=30)).waiting == []
    await superuser.execute("update sweeps set calm_since = now() - interval '31 seconds'")
    assert [job.job_id for job in (await sweep(database, lease_seconds=30)).waiting] == [claim.job_id]


async def test_sweeps_that_come_seldom_still_find_the_dead(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await sweep(database)
    claim = await jobs.start()
    await superuser.execute(GAP)
    await superuser.execute("update leases set lease_until = now() - interval '2 minutes'")
    assert [job.job_id for job in (await sweep(database, lease_seconds=30)).waiting] == [claim.job_id]


async def test_a_lease_renewed_while_a_sweep_looks_is_kept(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    for _ in range(20):
        claim = await jobs.start()
        await superuser.execute(RUN_OUT)
        kept, stuck = await asyncio.gather(renew(database, (claim.job_id, claim.run)), sweep(database))
        assert (claim.job_id in kept) != (claim.job_id in [job.job_id for job in stuck.waiting])
