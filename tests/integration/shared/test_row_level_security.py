"""Two tenants in one ledger: neither sees nor touches a row of the other, whichever table and statement it tries."""

from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from llm_pool.types import ChatMessage, CompletionRequest
from orchestrator.agents.catalog import AgentProfile, TenantProfile, save_tenants
from orchestrator.batches import store as batches
from orchestrator.batches.records import NewBatch, Shape
from orchestrator.failed_requests import store as failed_requests
from orchestrator.failed_requests.calls import PostgresFailedCalls
from orchestrator.jobs import endings, store
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from shared.database import APP_ROLE, SYSTEM_ROLE, Database, create_engine
from shared.errors import LLMUnavailableError
from tests.builders import build_attempt, build_message
from tests.ledger import claim_new

TENANT_COLUMN = {
    "tenants": "id",
    "agents": "tenant_id",
    "jobs": "tenant_id",
    "messages": "tenant_id",
    "runs": "tenant_id",
    "attempts": "tenant_id",
    "results": "tenant_id",
    "leases": "tenant_id",
    "waiting_tasks": "tenant_id",
    "failed_requests": "tenant_id",
    "failed_calls": "tenant_id",
    "batches": "tenant_id",
}
READABLE = """
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind in ('r', 'v', 'm', 'p') and has_table_privilege($1, c.oid, 'select')
"""
READABLE_COLUMNS = """
select attrelid::regclass::text, attname from pg_attribute
where attrelid = any (cast(cast($2 as text[]) as regclass[])) and attnum > 0 and not attisdropped
  and has_column_privilege($1, attrelid, attnum, 'select')
"""
BOUND = """
select c.relname from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relrowsecurity and c.relforcerowsecurity
  and exists (select from pg_policies p where p.tablename = c.relname and $1 = any (p.roles)
                                          and p.qual like '%llmyard.tenant_id%')
"""
CARRIES_A_TENANT = """
select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attname = 'tenant_id'
"""
NARROW = {
    "jobs", "leases", "runs", "attempts", "waiting_tasks", "failed_requests", "rejected_messages", "sweeps", "workers",
    "drains",
}  # fmt: skip
# What Postgres works out by itself, nobody writes.
WRITTEN = """
select string_agg(attname, ', ') from pg_attribute
where attrelid = cast($1 as regclass) and attnum > 0 and not attisdropped and attgenerated = ''
"""
INSERT = """
insert into {table} ({columns}) overriding system value
select {columns} from jsonb_populate_record(cast(null as {table}), cast(:row as jsonb))
"""


@pytest.fixture(autouse=True)
async def two_tenants(database: Database) -> None:
    """Both with a row in every table."""
    for tenant in ("a", "b"):
        profile = TenantProfile(tenant, tenant, "robin", (AgentProfile("robin", "Robin", "a seller"),))
        await save_tenants(database, [profile])
        async with database.as_tenant(tenant) as connection:
            await add_finished_job(connection, tenant)
            assert await claim_new(connection, build_message(tenant_id=tenant))
            await batches.add(connection, NewBatch(tenant, "f", "x", Shape.PROMPTS), anew=False)
        await PostgresFailedCalls(database).add("chat", ask(tenant_id=tenant), LLMUnavailableError())


def ask(tenant_id: str) -> CompletionRequest:
    return CompletionRequest("fast", (ChatMessage("user", "hello"),), tenant_id=tenant_id)


async def add_finished_job(connection: Any, tenant: str) -> None:
    message = build_message(id="same-id", tenant_id=tenant)
    claim = await claim_new(connection, message)
    assert claim
    await store.wait_for(connection, claim.job_id, "another task")
    await failed_requests.park(connection, claim, error_type="T", error_message="m")
    await endings.record(connection, claim, Ending(JobState.SUCCEEDED, "succeeded", {}, attempts=[build_attempt()]))


async def refuse(database: Database, statement: str, **parameters: Any) -> bool:
    """Whether tenant `a` is told that it may not, or the statement finds nothing to change."""
    try:
        async with database.as_tenant("a") as connection:
            return (await connection.execute(text(statement), parameters)).rowcount == 0
    except DBAPIError as error:
        return "row-level security" in str(error.orig) or "permission denied" in str(error.orig)


async def test_a_tenant_sees_its_own_rows_only(database: Database) -> None:
    async with database.as_tenant("a") as connection:
        for table, column in TENANT_COLUMN.items():
            assert set(await connection.scalars(text(f"select {column} from {table}"))) == {"a"}, table


@pytest.mark.parametrize("tenant", ["", "nobody", "a' or true --"])
async def test_no_such_tenant_sees_nothing(database: Database, tenant: str) -> None:
    async with database.as_tenant(tenant) as connection:
        for table in TENANT_COLUMN:
            assert await connection.scalar(text(f"select count(*) from {table}")) == 0, table


async def test_a_session_that_names_no_tenant_sees_nothing(superuser: asyncpg.Connection) -> None:
    await superuser.execute(f"set role {APP_ROLE}")
    for table in TENANT_COLUMN:
        assert await superuser.fetchval(f"select count(*) from {table}") == 0, table


async def test_a_tenant_changes_no_row_of_another(database: Database, superuser: asyncpg.Connection) -> None:
    for table, column in TENANT_COLUMN.items():
        rows = f"select * from {table} where {column} = 'b'"
        before = await superuser.fetch(rows)
        assert before, table
        assert await refuse(database, f"update {table} set {column} = 'a' where {column} = 'b'"), table
        assert await refuse(database, f"delete from {table} where {column} = 'b'"), table
        assert await superuser.fetch(rows) == before, table


async def test_a_tenant_writes_no_row_into_another(database: Database, superuser: asyncpg.Connection) -> None:
    for table, column in TENANT_COLUMN.items():
        # A row that is there already: without the policy it would meet its own key, not a refusal.
        row = await superuser.fetchval(f"select to_jsonb(t) from {table} t where {column} = 'b'")
        columns = await superuser.fetchval(WRITTEN, table)
        assert await refuse(database, INSERT.format(table=table, columns=columns), row=row), table


async def test_a_tenant_gives_no_row_away(database: Database) -> None:
    for table, column in TENANT_COLUMN.items():
        assert await refuse(database, f"update {table} set {column} = 'b' where {column} = 'a'"), table


async def test_role_and_tenant_end_with_the_transaction(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    async with Database(engine, engine).as_tenant("a"):
        pass
    async with engine.connect() as connection:
        who = text("select current_user, current_setting('llmyard.tenant_id', true)")
        assert (await connection.execute(who)).one() == ("postgres", "")
    await engine.dispose()


async def test_every_table_with_a_tenant_is_bound(superuser: asyncpg.Connection) -> None:
    carrying = {row[0] for row in await superuser.fetch(CARRIES_A_TENANT)}
    assert carrying | {"tenants"} == set(TENANT_COLUMN)
    assert {row[0] for row in await superuser.fetch(BOUND, APP_ROLE)} == set(TENANT_COLUMN)


async def test_what_the_app_role_can_read_is_bound(superuser: asyncpg.Connection) -> None:
    assert {row[0] for row in await superuser.fetch(READABLE, APP_ROLE)} == set(TENANT_COLUMN)


async def test_the_system_role_reads_no_payload(superuser: asyncpg.Connection) -> None:
    readable = {row[0] for row in await superuser.fetch(READABLE, SYSTEM_ROLE)}
    assert readable == NARROW


@pytest.mark.parametrize("table", ["messages", "results", "agents", "tenants"])
async def test_the_system_role_is_told_so(database: Database, table: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        async with database.as_system() as connection:
            await connection.execute(text(f"select * from {table}"))


async def test_the_system_role_reads_keys_only_of_what_was_asked(superuser: asyncpg.Connection) -> None:
    columns = await superuser.fetch(READABLE_COLUMNS, SYSTEM_ROLE, ["messages", "results", "agents", "tenants"])
    assert {tuple(row) for row in columns} == {
        ("messages", "job_id"), ("messages", "tenant_id"), ("messages", "message_id"), ("tenants", "id"),
    }  # fmt: skip


async def test_the_system_role_sees_the_jobs_of_all_tenants(database: Database) -> None:
    async with database.as_system() as connection:
        assert set(await connection.scalars(text("select tenant_id from jobs"))) == {"a", "b"}
