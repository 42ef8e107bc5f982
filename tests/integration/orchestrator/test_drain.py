"""The drain over a real ledger: who goes, in which order, how many at once, and what it costs."""

import asyncio
from collections import Counter
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text

from orchestrator.failed_requests import replay
from orchestrator.failed_requests.policy import PROBE_INTERVAL_SECONDS
from orchestrator.failed_requests.replay import discard_expired, release_due
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.sweeps import Waiting
from shared.database import Database
from tests.ledger import Jobs

PARK = """
with job as (
    insert into jobs (id, tenant_id, task_id, state, run, created_at)
    select gen_random_uuid(), $1, $1 || '-' || n, 'parked', 1, now() - $3::interval - make_interval(secs => n * 0.001)
    from generate_series(1, $4::integer) n returning *
)
insert into failed_requests (id, tenant_id, job_id, model, state, parks, next_try_at, error_type, error_message,
                             created_at, updated_at)
select id, tenant_id, id, $2, 'parked', 1, now() - $5::interval, 'LLMUnavailableError', 'down',
       created_at, now() - interval '1 hour'
from job
"""
END = """
with failed as (
    update failed_requests set state = $2, parks = parks + ($2 = 'parked')::integer, updated_at = clock_timestamp(),
                               next_try_at = now() + interval '5 s', error_type = $3
    where state = 'replaying' and model like $1 returning job_id
)
update jobs set state = case $2 when 'parked' then 'parked' else 'succeeded' end from failed where id = job_id
"""
ALL_READ = """
select coalesce(sum(seq_tup_read), 0) as scanned, coalesce(sum(idx_tup_fetch), 0) as fetched
from pg_stat_xact_user_tables where relname in ('jobs', 'failed_requests')
"""


class Yard:
    """Parks what a test needs, and plays the workers that get it back."""

    def __init__(self, database: Database, superuser: asyncpg.Connection) -> None:
        self.database = database
        self.superuser = superuser

    async def park(
        self, tenant: str, number: int = 1, *, model: str = "fast", age: float = 60.0, due: float = 1.0
    ) -> None:
        """`age` and `due` in seconds ago."""
        await self.superuser.execute(PARK, tenant, model, timedelta(seconds=age), number, timedelta(seconds=due))

    async def release(self) -> list[Waiting]:
        return await release_due(self.database)

    async def release_counted(self) -> Counter[str]:
        return Counter(job.tenant_id for job in await self.release())

    async def answer(self, model: str = "%") -> None:
        await self.superuser.execute(END, model, "answered", "")

    async def turn_away(self, model: str = "%", error_type: str = "LLMUnavailableError") -> None:
        await self.superuser.execute(END, model, "parked", error_type)

    async def open_up(self, slots: int) -> None:
        """Let the pace be as large as it can be, for a fleet of so many slots."""
        await self.superuser.execute("insert into workers (name, node, concurrency) values ('w', 'n', $1)", slots)
        await self.superuser.execute(
            """
            insert into drains (queue, model, allowed, answered_at)
            select distinct 'jobs', model, 500, now() from failed_requests
            """
        )


@pytest.fixture
async def yard(database: Database, superuser: asyncpg.Connection) -> Yard:
    return Yard(database, superuser)


async def test_one_probe_then_nothing_until_it_has_ended(yard: Yard, superuser: asyncpg.Connection) -> None:
    await yard.park("acme", 3)
    (probe,) = await yard.release()
    assert await superuser.fetchval("select state from jobs where id = $1", probe.job_id) == "queued"
    assert await superuser.fetchval("select state from failed_requests where job_id = $1", probe.job_id) == "replaying"
    assert await yard.release() == []


async def test_answers_let_twice_as_many_go_each_round(yard: Yard) -> None:
    await yard.park("acme", 20)
    waves = []
    while released := await yard.release():
        waves.append(len(released))
        await yard.answer()
    assert waves == [1, 2, 4, 8, 5]


async def test_a_probe_that_is_turned_away_is_the_last_for_a_while(yard: Yard, superuser: asyncpg.Connection) -> None:
    await yard.park("acme", 3)
    await yard.release()
    await yard.turn_away()
    for _ in range(3):
        assert await yard.release() == []
    await superuser.execute(
        "update drains set turned_away_at = now() - make_interval(secs => $1)", PROBE_INTERVAL_SECONDS
    )
    assert len(await yard.release()) == 1


async def test_a_tenant_without_money_says_nothing_of_the_provider(yard: Yard) -> None:
    await yard.park("poor")
    await yard.park("rich", 3)
    await yard.release()
    await yard.turn_away(error_type="LLMBudgetExceededError")
    assert len(await yard.release()) == 1


async def test_new_work_that_is_parked_meanwhile_does_not_stop_the_drain(yard: Yard) -> None:
    await yard.park("acme", 30)
    for wave in (1, 2, 4):
        assert len(await yard.release()) == wave
        await yard.answer()
        await yard.park("new", 5, age=0.0, due=-5.0)
        await yard.superuser.execute(
            "update failed_requests set updated_at = clock_timestamp() where tenant_id = 'new'"
        )


async def test_a_group_that_is_down_does_not_hold_another(yard: Yard) -> None:
    await yard.park("acme", 9, model="down")
    await yard.park("acme", 9, model="up")
    assert len(await yard.release()) == 2
    await yard.turn_away("down")
    await yard.answer("up")
    assert len(await yard.release()) == 2
    await yard.answer("up")
    assert len(await yard.release()) == 4


async def test_half_of_the_slots_stay_with_fresh_work(yard: Yard) -> None:
    await yard.park("acme", 50)
    await yard.open_up(slots=32)
    assert len(await yard.release()) == 16
    assert await yard.release() == []


async def test_room_that_one_group_has_no_use_for_is_left_to_the_next(yard: Yard) -> None:
    await yard.park("acme", 3, model="few")
    await yard.park("acme", 9, model="later", due=-48 * 3600)
    await yard.park("acme", 50, model="many")
    await yard.open_up(slots=32)
    assert len(await yard.release()) == 16


async def test_workers_that_are_gone_or_going_hold_no_slots(yard: Yard, superuser: asyncpg.Connection) -> None:
    await yard.park("acme", 50)
    await yard.open_up(slots=8)
    add = """
        insert into workers (name, node, concurrency, seen_at, is_stopping)
        values ($1, $1, 64, now() - $2::interval, $3)
    """
    await superuser.execute(add, "gone", timedelta(minutes=2), False)
    await superuser.execute(add, "going", timedelta(), True)
    assert len(await yard.release()) == 4


async def test_the_oldest_goes_first(yard: Yard, superuser: asyncpg.Connection) -> None:
    for age in (10.0, 90.0, 30.0, 60.0):
        await yard.park("acme", age=age, due=100.0 - age)
    await yard.open_up(slots=6)
    released = [job.job_id for job in await yard.release()]
    oldest = await superuser.fetch("select id from jobs order by created_at limit 3")
    assert released == [row["id"] for row in oldest]


async def test_what_is_not_due_stays_however_old(yard: Yard) -> None:
    await yard.park("acme", 5, age=1000.0, due=-48 * 3600)
    await yard.park("acme", 1, age=1.0)
    await yard.open_up(slots=100)
    assert len(await yard.release()) == 1


async def test_tenants_go_in_turn_so_that_the_many_do_not_delay_the_few(yard: Yard) -> None:
    await yard.park("crowd", 1000, age=10_000.0)
    await yard.park("few", 3)
    await yard.park("one", 1)
    await yard.open_up(slots=16)
    assert await yard.release_counted() == {"crowd": 4, "few": 3, "one": 1}


async def test_the_next_pass_begins_behind_the_tenant_whose_turn_it_was_last(yard: Yard) -> None:
    for tenant in "abcdefgh":
        await yard.park(tenant, 5)
    await yard.open_up(slots=6)
    served = []
    for _ in range(4):
        served += [job.tenant_id for job in await yard.release()]
        await yard.answer()
    assert served == list("abcdefghabcd")


async def test_passes_at_the_same_moment_fill_the_room_once(yard: Yard) -> None:
    await yard.park("acme", 60)
    await yard.open_up(slots=20)
    # Connects, so that the three begin together.
    await asyncio.gather(*(discard_expired(yard.database, expires_seconds=1e6) for _ in range(3)))
    released = await asyncio.gather(*(yard.release() for _ in range(3)))
    assert sum(map(len, released)) == 10


async def test_a_job_that_somebody_is_just_ending_is_passed_over(
    yard: Yard, superuser: asyncpg.Connection, jobs: Jobs
) -> None:
    await yard.park("default", 1)
    job_id = await superuser.fetchval("select id from jobs")
    async with superuser.transaction():
        await superuser.execute("update jobs set state = 'cancelled', finished_at = now()")
        assert await asyncio.wait_for(yard.release(), 5) == []
    assert await yard.release() == []
    assert await superuser.fetchval("select state from jobs where id = $1", job_id) == JobState.CANCELLED


async def test_what_waited_too_long_ends_with_a_result_that_says_why(yard: Yard, superuser: asyncpg.Connection) -> None:
    await yard.park("acme", 2, age=7200.0, due=-48 * 3600)
    await yard.park("acme", 1, age=60.0)
    old = await superuser.fetchrow("select id, tenant_id from jobs order by created_at limit 1")
    await superuser.execute("insert into waiting_tasks values ($1, 'second-task', $2)", *old)
    ended = {job.result["job_id"]: job for job in await discard_expired(yard.database, expires_seconds=3600)}
    assert await superuser.fetchval("select count(*) from jobs where state = 'discarded' and finished_at <= now()") == 2
    assert await superuser.fetchval("select count(*) from failed_requests where state = 'discarded'") == 2
    told = ended[str(old["id"])]
    assert told.task_ids == ("acme-2", "second-task")
    assert told.error == (
        "ParkedTooLong: nobody could answer it within 1:00:00; it had been parked for 2:00:00 because of "
        "LLMUnavailableError: down"
    )
    assert await superuser.fetchval("select body ->> 'state' from results where job_id = $1", old["id"]) == "discarded"
    assert await discard_expired(yard.database, expires_seconds=3600) == []


async def test_no_more_than_a_batch_ends_at_once(yard: Yard) -> None:
    await yard.park("acme", replay.EXPIRED_AT_ONCE + 50, age=7200.0)
    assert len(await discard_expired(yard.database, expires_seconds=60)) == replay.EXPIRED_AT_ONCE
    assert len(await discard_expired(yard.database, expires_seconds=60)) == 50


async def test_a_pass_reads_few_rows_however_many_are_parked_or_have_ended(
    yard: Yard, database: Database, superuser: asyncpg.Connection
) -> None:
    await yard.park("crowd", 9_000, age=10_000.0)
    await superuser.execute("update failed_requests set state = 'answered' where right(id::text, 1) < '8'")
    for tenant in range(40):
        await yard.park(f"tenant-{tenant}", 50, model="quality")
    await yard.park("patient", 3_000, due=-48 * 3600)
    await yard.open_up(slots=40)
    async with database.as_system() as connection:
        assert len(await replay.release(connection)) == 20
        read = (await connection.execute(text(ALL_READ))).one()
    assert read.scanned == 0
    assert read.fetched < 3 * replay.drains.LONGEST_DUE
