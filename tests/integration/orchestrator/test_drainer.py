"""When the drain of a worker goes, and when it lets everybody sleep."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy import text

from llm_pool.client.failed_requests import FIRST_WAIT_SECONDS
from llm_pool.types import ChatMessage, CompletionRequest
from orchestrator.beat import SWEEP_SECONDS
from orchestrator.failed_requests import drains
from orchestrator.failed_requests.calls import PostgresFailedCalls
from orchestrator.failed_requests.drainer import LASTS_SECONDS, Drainer
from shared.database import Database
from shared.errors import LLMUnavailableError
from tests.fakes.postgres_gate import PostgresGate

PASS_SECONDS = 0.05
DAY = 86_400.0
PARK = """
with job as (
    insert into jobs (id, tenant_id, task_id, state, run)
    select gen_random_uuid(), 'acme', 'task-' || n, 'parked', 1 from generate_series(1, $2::integer) n returning *
)
insert into failed_requests (id, tenant_id, job_id, model, state, parks, next_try_at, error_type, error_message)
select id, tenant_id, id, 'fast', 'parked', 1, now() + make_interval(secs => $1::double precision), 'T', 'm' from job
"""
READ = """
select coalesce(sum(seq_tup_read), 0) + coalesce(sum(idx_tup_fetch), 0)
from pg_stat_xact_user_tables where relname in ('failed_calls', 'failed_requests')
"""


class Calls:
    """The replayer of calls, as the drainer sees it; counts its passes, and holds them up while told to."""

    def __init__(self) -> None:
        self.passes = 0
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def start_due(self) -> int:
        self.begun.set()
        await self.may_end.wait()
        self.passes += 1
        return 0


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def drainer(database: Database, calls: Calls, broker: str) -> Drainer:
    return build(database, calls)


def build(database: Database, calls: Calls, lasts_seconds: float = 30.0) -> Drainer:
    return Drainer(database, calls, expires_seconds=DAY, pass_seconds=PASS_SECONDS, lasts_seconds=lasts_seconds)


async def comes_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the database gives no event
            await asyncio.sleep(0.02)


async def test_where_nothing_is_parked_one_look_is_all(drainer: Drainer, calls: Calls) -> None:
    drainer.go_on()
    await drainer.wait()
    assert calls.passes == 0


async def test_what_comes_due_meanwhile_is_sent_back(drainer: Drainer, superuser: asyncpg.Connection) -> None:
    await superuser.execute(PARK, 0.5, 1)
    drainer.go_on()

    async def is_queued() -> bool:
        return bool(await superuser.fetchval("select exists (select from jobs where state = 'queued')"))

    assert not await is_queued()
    await comes_true(is_queued)
    await drainer.wait()
    await drainer.aclose()


async def test_it_ends_by_itself_unless_it_is_asked_again(
    database: Database, superuser: asyncpg.Connection, calls: Calls, broker: str
) -> None:
    await superuser.execute(PARK, DAY, 1)
    drainer = build(database, calls, lasts_seconds=0.3)
    drainer.go_on()
    await drainer.wait()
    first = calls.passes
    assert 0 < first <= 0.3 / PASS_SECONDS + 1
    drainer.go_on()
    drainer.go_on()
    await drainer.wait()
    assert first < calls.passes <= 2 * (0.3 / PASS_SECONDS + 1), "asked twice at once it still is one drain"


async def test_what_parks_later_is_seen_at_the_next_sweep(
    drainer: Drainer, superuser: asyncpg.Connection, calls: Calls
) -> None:
    drainer.go_on()
    await drainer.wait()
    await superuser.execute(PARK, DAY, 1)
    drainer.go_on()
    await comes_true(lambda: has_passed(calls))
    await drainer.aclose()


async def has_passed(calls: Calls) -> bool:
    return calls.passes > 0


def test_no_parked_request_is_due_before_a_sweep_has_seen_it() -> None:
    assert FIRST_WAIT_SECONDS >= SWEEP_SECONDS
    assert LASTS_SECONDS > SWEEP_SECONDS


async def test_a_pass_under_way_is_brought_to_its_end(
    drainer: Drainer, superuser: asyncpg.Connection, calls: Calls
) -> None:
    await superuser.execute(PARK, DAY, 1)
    calls.may_end.clear()
    drainer.go_on()
    await calls.begun.wait()
    closing = asyncio.create_task(drainer.aclose())
    await asyncio.sleep(3 * PASS_SECONDS)
    assert not closing.done()
    calls.may_end.set()
    await closing
    drainer.go_on()
    assert (calls.passes, drainer.is_draining) == (1, False)


async def test_a_database_that_is_away_costs_a_sweep_and_no_more(
    gate: PostgresGate, gated: Database, superuser: asyncpg.Connection, calls: Calls, broker: str
) -> None:
    await superuser.execute(PARK, DAY, 1)
    drainer = build(gated, calls)
    await gate.shut()
    drainer.go_on()
    await drainer.wait()
    await gate.open()
    drainer.go_on()
    await comes_true(lambda: has_passed(calls))
    await drainer.aclose()


async def is_anything_open(database: Database) -> bool:
    async with database.as_system() as connection:
        return await drains.is_anything_open(connection)


async def test_a_parked_call_is_something_to_do_until_it_is_answered(
    database: Database, superuser: asyncpg.Connection
) -> None:
    request = CompletionRequest("fast", (ChatMessage("user", "hello"),), tenant_id="acme")
    await PostgresFailedCalls(database).add("chat", request, LLMUnavailableError())
    assert await is_anything_open(database)
    await superuser.execute("update failed_calls set state = 'replaying'")
    assert await is_anything_open(database), "it may never be heard of again"
    await superuser.execute("update failed_calls set state = 'answered'")
    assert not await is_anything_open(database)


async def test_what_has_ended_is_not_looked_through(database: Database, superuser: asyncpg.Connection) -> None:
    """Not even where the statistics are of the time when all was parked."""
    await superuser.execute("alter table failed_requests set (autovacuum_enabled = off)")
    await superuser.execute(PARK, DAY, 3000)
    await superuser.execute("analyze failed_requests")
    await superuser.execute("update failed_requests set state = 'answered'")
    await superuser.execute("vacuum failed_requests")
    async with database.as_system() as connection:
        assert not await drains.is_anything_open(connection)
        assert await connection.scalar(text(READ)) < 100
