"""Many jobs claimed, and many runs ended, by one statement: each as if it had been alone, and in one order of locks."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import TextClause, text
from uuid_utils.compat import uuid7

from orchestrator.failed_requests import store as failed_requests
from orchestrator.jobs import claims, endings, store, sweeps
from orchestrator.jobs.claims import ClaimedJob, NewClaims, NewJob, WaitingJob
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.statements import PLAN_ONCE, compile_statement
from orchestrator.messages import Message
from shared.database import APP_ROLE, SYSTEM_ROLE, Database
from tests.builders import build_message
from tests.ledger import ANSWERED, FAILED, HANDED_BACK, OVERTAKE, PARKED, Jobs, count

SECOND_TENANT = "insert into tenants (id, name, default_agent_id) values ('acme', 'Acme', 'x')"
BATCH = "update jobs set batch_id = gen_random_uuid()"
WHOSE = """
select jobs.tenant_id as job, runs.tenant_id as run, leases.tenant_id as lease, messages.tenant_id as message,
       body ->> 'tenant_id' as body
from jobs join runs on runs.job_id = id join leases on leases.job_id = id join messages on messages.job_id = id
where id = $1
"""
UPDATES = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = $1"
READS_A_TABLE = re.compile(
    r"Scan .*\bon (jobs|messages|runs|leases|attempts|results|tenants|waiting_tasks|failed_requests)\b"
)


def build_new(message: Message | None = None, task_id: str = "task-1") -> NewJob:
    return NewJob(uuid7(), message or build_message(), task_id, claim_id=uuid7())


def build_waiting(job_id: UUID, task_id: str = "task-1") -> WaitingJob:
    return WaitingJob(job_id, task_id, claim_id=uuid7())


class Groups:
    """The statements, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim_new(self, *new: NewJob) -> NewClaims:
        async with self._database.as_system() as connection:
            return await claims.claim_new(connection, new, "w-1", 30)

    async def claim_known(self, *waiting: WaitingJob) -> dict[UUID, ClaimedJob]:
        async with self._database.as_system() as connection:
            return await claims.claim_known(connection, waiting, "w-1", 30)

    async def record(self, *ended: tuple[ClaimedJob, Ending]) -> frozenset[tuple[UUID, int]]:
        async with self._database.as_system() as connection:
            return await endings.record_all(connection, ended)

    async def start(self, number: int) -> list[ClaimedJob]:
        claimed = (await self.claim_new(*(build_new() for _ in range(number)))).claimed
        return list(claimed.values())


@pytest.fixture
def groups(database: Database) -> Groups:
    return Groups(database)


async def test_each_message_becomes_a_job_of_its_own_tenant(groups: Groups, superuser: asyncpg.Connection) -> None:
    await superuser.execute(SECOND_TENANT)
    new = [build_new(build_message(id="m", tenant_id=tenant), f"of-{tenant}") for tenant in ("acme", "default")]
    found = await groups.claim_new(*new)
    assert found == NewClaims(
        {each.job_id: ClaimedJob(each.job_id, each.message.tenant_id, each.task_id, 1, 0) for each in new},
        {},
        frozenset(),
    )
    for each in new:
        row = await superuser.fetchrow(WHOSE, each.job_id)
        assert set(row.values()) == {each.message.tenant_id}


async def test_an_unknown_tenant_keeps_nobody_else_from_being_taken_in(
    groups: Groups, superuser: asyncpg.Connection
) -> None:
    good, bad = build_new(), build_new(build_message(tenant_id="nobody"))
    found = await groups.claim_new(bad, good)
    assert (set(found.claimed), found.found, found.unknown_tenants) == ({good.job_id}, {}, {"nobody"})
    assert await count(superuser, "jobs") == await count(superuser, "messages") == 1


async def test_a_message_that_is_a_job_already_is_claimed_under_its_own_id(groups: Groups, jobs: Jobs) -> None:
    waits, runs = build_message(id="waits"), build_message(id="runs")
    waiting, running = await jobs.add(waits, "task-1"), await jobs.add_and_claim(runs)
    assert waiting
    assert running
    first, second, third = build_new(waits, "task-2"), build_new(runs), build_new()
    found = await groups.claim_new(first, second, third)
    assert found.claimed[first.job_id] == ClaimedJob(waiting, "default", "task-1", 1, 0)
    assert found.found == {second.job_id: running.job_id}
    assert set(found.claimed) == {first.job_id, third.job_id}
    assert set(await jobs.find_waiting_tasks(waiting)) == {"task-1", "task-2"}


async def test_the_same_message_twice_in_a_group_is_one_run(groups: Groups, superuser: asyncpg.Connection) -> None:
    message = build_message()
    first, second = build_new(message), build_new(message)
    found = await groups.claim_new(first, second)
    assert len(found.claimed) == len(found.found) == 1
    assert set(found.claimed) | set(found.found) == {first.job_id, second.job_id}
    assert await count(superuser, "runs") == await count(superuser, "leases") == 1


async def test_a_claim_whose_reply_was_lost_is_made_once(
    groups: Groups, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    job_id = await jobs.add(build_message())
    assert job_id
    new, waiting = [build_new(), build_new()], build_waiting(job_id)
    assert await groups.claim_new(*new) == await groups.claim_new(*new)
    assert await groups.claim_known(waiting) == await groups.claim_known(waiting)
    assert await count(superuser, "runs") == 3


async def test_only_what_is_queued_is_claimed_and_once(groups: Groups, jobs: Jobs) -> None:
    queued, running = await jobs.add(build_message()), await jobs.start()
    assert queued
    twice = build_waiting(queued), build_waiting(queued)
    found = await groups.claim_known(build_waiting(running.job_id), *twice, build_waiting(uuid7()))
    assert len(found) == 1
    assert set(found) < {waiting.claim_id for waiting in twice}
    assert next(iter(found.values())) == ClaimedJob(queued, "default", "task-1", 1, 0)


async def test_a_tenant_reads_its_own_messages_only(
    database: Database, groups: Groups, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(SECOND_TENANT)
    mine, other = build_new(), build_new(build_message(tenant_id="acme"))
    await groups.claim_new(mine, other)
    async with database.as_tenant("default") as connection:
        assert await claims.read_messages(connection, [mine.job_id, other.job_id]) == {mine.job_id: mine.message}


async def test_every_run_of_a_group_ends_in_its_own_way(
    groups: Groups, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    ways = (ANSWERED, FAILED, PARKED, HANDED_BACK)
    ended = dict(zip(await groups.start(4), ways, strict=True))
    assert await groups.record(*ended.items()) == {(run.job_id, 1) for run in ended}
    for run, ending in ended.items():
        job = await jobs.find(run.job_id)
        assert (job.state, job.result, bool(job.finished_at)) == (ending.state, ending.result, ending.state.is_final)
        outcome = await superuser.fetchval("select outcome from runs where job_id = $1", run.job_id)
        paid = await superuser.fetchval("select count(*) from attempts where job_id = $1", run.job_id)
        assert (outcome, paid) == (ending.outcome, len(ending.attempts))
    assert await count(superuser, "leases") == 0


async def test_stale_and_owning_runs_of_one_job_in_one_group(
    groups: Groups, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    (stale,) = await groups.start(1)
    await superuser.execute(OVERTAKE)
    await superuser.execute("update runs set outcome = 'expired', ended_at = now()")
    await superuser.execute("update jobs set crash_count = 1")
    waiting = build_waiting(stale.job_id)
    owner = (await groups.claim_known(waiting))[waiting.claim_id]
    assert await groups.record((owner, FAILED), (stale, ANSWERED), (owner, FAILED)) == {(owner.job_id, 2)}
    job = await jobs.find(owner.job_id)
    assert (job.state, job.result) == (JobState.FAILED, FAILED.result)
    outcomes = await superuser.fetch("select outcome from runs order by number")
    assert [row["outcome"] for row in outcomes] == ["stale", "failed"]
    assert await superuser.fetchval("select crash_count from jobs") == 0, "the late run was no crash"
    assert await count(superuser, "attempts") == len(ANSWERED.attempts)


async def test_recording_a_group_twice_pays_and_answers_once(groups: Groups, superuser: asyncpg.Connection) -> None:
    ended = [(run, ANSWERED) for run in await groups.start(3)]
    assert len(await groups.record(*ended)) == 3
    assert await groups.record(*ended) == frozenset()
    assert await count(superuser, "attempts") == await count(superuser, "results") == 3


async def meet(superuser: asyncpg.Connection, blocker: str, *groups: Coroutine[Any, Any, Any]) -> list[Any]:
    """Lets each come as far as it can without what the blocker holds; the deadlock there may be is raised to one."""
    blocking = superuser.transaction()
    await blocking.start()
    await superuser.execute(blocker)
    tasks = [asyncio.create_task(group) for group in groups]
    # Nothing tells of a lock that is waited for.
    while await superuser.fetchval("select count(*) from pg_locks where not granted") < len(tasks):  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.01)
    await blocking.rollback()
    return await asyncio.gather(*tasks)


async def test_the_same_messages_in_two_orders_do_not_lock_each_other_out(
    groups: Groups, superuser: asyncpg.Connection
) -> None:
    messages = [build_message(id=name) for name in ("a", "b", "c")]
    blocker = "insert into messages values (gen_random_uuid(), 'default', 'b', '{}')"
    one, other = list(map(build_new, messages)), list(map(build_new, reversed(messages)))
    found = await meet(superuser, blocker, groups.claim_new(*one), groups.claim_new(*other))
    assert sorted(len(each.claimed) for each in found) == [0, 3]
    assert await count(superuser, "jobs") == 3


async def test_the_same_jobs_in_two_orders_do_not_lock_each_other_out(
    groups: Groups, superuser: asyncpg.Connection
) -> None:
    runs = sorted(await groups.start(3), key=lambda run: run.job_id)
    blocker = f"select from jobs where id = '{runs[1].job_id}' for update"
    one, other = [(run, HANDED_BACK) for run in runs], [(run, HANDED_BACK) for run in reversed(runs)]
    counted = await meet(superuser, blocker, groups.record(*one), groups.record(*other))
    assert sorted(map(len, counted)) == [0, 3]
    ids = [run.job_id for run in runs]
    first, second = list(map(build_waiting, ids)), list(map(build_waiting, reversed(ids)))
    claimed = await meet(superuser, blocker, groups.claim_known(*first), groups.claim_known(*second))
    assert sorted(map(len, claimed)) == [0, 3]


async def test_waiting_tasks_and_failed_requests_of_many(
    database: Database, groups: Groups, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    first, second, third = await groups.start(3)
    for task_id in ("a", "b"):
        await jobs.wait_for(first.job_id, task_id)
    await superuser.execute(
        """
        insert into failed_requests (id, tenant_id, job_id, state, parks, next_try_at, error_type, error_message)
        select id, tenant_id, id, 'replaying', 1, now(), 'T', 'm' from jobs
        """
    )
    async with database.as_system() as connection:
        found = await store.find_waiting_tasks_of(connection, [first.job_id, second.job_id])
        assert {job_id: set(tasks) for job_id, tasks in found.items()} == {first.job_id: {"a", "b"}}
        await failed_requests.end_all(connection, [first.job_id], answered=True)
        await failed_requests.end_all(connection, [second.job_id], answered=False)
    states = {row["job_id"]: row["state"] for row in await superuser.fetch("select job_id, state from failed_requests")}
    assert states == {first.job_id: "answered", second.job_id: "discarded", third.job_id: "replaying"}


async def test_a_job_of_a_batch_waits_for_no_message_of_its_own(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    for _ in range(2):
        await jobs.add(build_message())
    assert await superuser.fetchval("select count(*) from jobs where queued_at = dispatched_at") == 2
    await superuser.execute(f"{BATCH} where id = (select id from jobs limit 1)")
    async with database.as_system() as connection:
        assert await sweeps.count_queued(connection, limit=10) == 1
        assert len(await sweeps.take_undelivered(connection, before=None, after_seconds=-1, limit=10)) == 1


async def test_a_job_of_a_batch_that_lost_its_worker_is_given_back_like_others(
    database: Database, groups: Groups, superuser: asyncpg.Connection
) -> None:
    await groups.start(1)
    await superuser.execute(BATCH)
    await superuser.execute("update leases set lease_until = now() - interval '1 minute'")
    async with database.as_system() as connection:
        (expired,) = await sweeps.expire_leases(connection, spared_seconds=0, limit=10)
    assert expired.state is JobState.QUEUED


async def test_what_ends_a_run_touches_no_index(
    database: Database, groups: Groups, superuser: asyncpg.Connection
) -> None:
    runs = await groups.start(20)
    await groups.record(*((run, ANSWERED) for run in runs))
    async with database.as_system() as connection:
        await connection.execute(text("select pg_stat_force_next_flush()"))
    for table in ("jobs", "runs"):
        updated, heap_only = await superuser.fetchrow(UPDATES, table)
        assert updated == heap_only == 20, table


STATEMENTS = {
    "take in": claims._TAKE_IN,
    "claim": claims._CLAIM,
    "find claims": claims._FIND_CLAIMS,
    "record": endings._RECORD,
    "waiting tasks": store._WAITING_TASKS_OF,
    "end failed requests": failed_requests._END_ALL,
}
STATEMENTS_OF_A_TENANT = {
    "claim": claims._CLAIM,
    "find claims": claims._FIND_CLAIMS,
    "read messages": claims._READ_MESSAGES,
}
BY_ROLE = [
    *((SYSTEM_ROLE, name, statement) for name, statement in STATEMENTS.items()),
    *((APP_ROLE, name, statement) for name, statement in STATEMENTS_OF_A_TENANT.items()),
]


@pytest.mark.parametrize("is_vacuumed", [False, True])
@pytest.mark.parametrize(("role", "name", "statement"), BY_ROLE)
async def test_a_plan_made_while_the_tables_were_empty_looks_everything_up(
    superuser: asyncpg.Connection, role: str, name: str, statement: TextClause, is_vacuumed: bool
) -> None:
    """A worker keeps its plans, and a million rows may come before anybody counts them anew."""
    if is_vacuumed:
        await superuser.execute("vacuum analyze")
    compiled, names = compile_statement(statement)
    await superuser.execute(f"begin; set local role {role}")
    await superuser.execute(PLAN_ONCE)
    await superuser.execute(f"prepare kept as {compiled}")
    nothing = ", ".join(["null"] * len(names))
    plan = [row[0] for row in await superuser.fetch(f"explain execute kept ({nothing})")]
    read = [number for number, line in enumerate(plan) if READS_A_TABLE.search(line)]
    assert read or name == "take in"
    for number in read:
        assert "Cond:" in plan[number + 1], "\n".join(plan)
