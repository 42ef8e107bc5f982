"""What a run asks of the database: nothing while a model thinks, and patience when it is away."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from llm_pool.catalog import ModelGroup
from llm_pool.pool import Pool
from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.jobs.deliveries import NewMessage
from orchestrator.outcomes import Succeeded
from shared.database import Database, create_engine
from tests.builders import build_message
from tests.fakes.postgres_gate import PostgresGate
from tests.fakes.scripted_pool import ScriptedPool
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy
from tests.ledger import count
from tests.running import build_runner

END_SESSIONS = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[Database]:
    """A database with a single connection."""
    engine = create_engine(database_url, pool_size=1)
    database = Database(engine, engine)
    await ensure_default_tenant(database)
    yield database
    await database.aclose()


async def test_no_connection_is_held_while_a_model_thinks(narrow: Database) -> None:
    pool = ScriptedPool(is_held=True)
    runner = build_runner(narrow, pool)
    handling = [asyncio.create_task(runner.handle(NewMessage(build_message(), "task"))) for _ in range(5)]
    await pool.is_thinking(5)
    pool.released.set()
    assert all(isinstance(outcome, Succeeded) for outcome in await asyncio.gather(*handling))


async def test_no_transaction_is_open_while_a_model_thinks(database: Database, superuser: asyncpg.Connection) -> None:
    pool = ScriptedPool(is_held=True)
    handling = asyncio.create_task(build_runner(database, pool).handle(NewMessage(build_message(), "task")))
    await pool.is_thinking(1)
    states = await superuser.fetch(
        "select state from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )
    assert {row["state"] for row in states} == {"idle"}
    pool.released.set()
    await handling


@pytest.mark.parametrize("wound", ["the sessions end", "the server is gone"])
async def test_an_answer_outlives_an_outage_of_the_database(
    gated: Database, gate: PostgresGate, superuser: asyncpg.Connection, wound: str
) -> None:
    pool = ScriptedPool("dear answer", is_held=True)
    handling = asyncio.create_task(build_runner(gated, pool).handle(NewMessage(build_message(), "task")))
    await pool.is_thinking(1)
    if wound == "the sessions end":
        await superuser.execute(END_SESSIONS)
        pool.released.set()
    else:
        await gate.shut()
        pool.released.set()
        await asyncio.sleep(0.15)
        assert not handling.done()
        await gate.open()
    assert isinstance(await handling, Succeeded)
    assert len(pool.asked) == 1
    rows = await superuser.fetch("select body ->> 'content' as content from results")
    assert [row["content"] for row in rows] == ["dear answer"]
    assert await count(superuser, "attempts") == 1


async def test_a_message_that_comes_during_an_outage_waits_for_its_end(gated: Database, gate: PostgresGate) -> None:
    await gate.shut()
    handling = asyncio.create_task(build_runner(gated, ScriptedPool()).handle(NewMessage(build_message(), "task")))
    await asyncio.sleep(0.15)
    assert not handling.done()
    await gate.open()
    assert isinstance(await handling, Succeeded)


async def test_runs_survive_a_database_that_comes_and_goes(
    gated: Database, gate: PostgresGate, superuser: asyncpg.Connection
) -> None:
    runner = build_runner(gated, ScriptedPool(thinks_seconds=0.02))
    handling = [asyncio.create_task(runner.handle(NewMessage(build_message(), f"task-{n}"))) for n in range(30)]
    for _ in range(8):
        await asyncio.sleep(0.01)
        await gate.shut()
        await gate.open()
    await asyncio.gather(*handling)
    # A claim whose commit went through but was never confirmed is left to its lease; every other run ends.
    assert await superuser.fetchval("select count(*) from jobs where state not in ('succeeded', 'running')") == 0
    assert await count(superuser, "jobs") == 30
    succeeded = await superuser.fetchval("select count(*) from jobs where state = 'succeeded'")
    assert succeeded == await count(superuser, "results") == await count(superuser, "attempts")


async def test_what_a_model_says_can_always_be_recorded(database: Database, superuser: asyncpg.Connection) -> None:
    catalog = build_catalog(ModelGroup("quality", (deploy("a"),)))
    pool = Pool(catalog, registry=build_registry({"a": Script(["an answer with \x00 and \ud800"])}))
    outcome = await build_runner(database, pool).handle(NewMessage(build_message(), "task"))
    assert isinstance(outcome, Succeeded)
    assert await count(superuser, "attempts") == 1
    await pool.aclose()
