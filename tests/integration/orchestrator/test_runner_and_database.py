"""What a run asks of the database: nothing while a model thinks, and patience when it is away."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from llm_pool.catalog import ModelGroup
from llm_pool.pool import Pool
from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.agents.runner import NewMessage, Runner
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.outcomes import Parked, Succeeded
from orchestrator.recorder import Recorder
from shared.database import Database, create_engine
from shared.errors import LLMOverloadedError
from tests.builders import build_message
from tests.databases import close_doors, open_doors
from tests.fakes.scripted_pool import ScriptedPool
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy


def build_runner(database: Database, pool: ScriptedPool | Pool) -> Runner:
    return Runner(database, pool, LeaseKeeper(database, lease_seconds=30), Recorder(database), worker="w-1")


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[Database]:
    """A database with a single connection."""
    engine = create_engine(database_url, pool_size=1)
    database = Database(engine, engine)
    await ensure_default_tenant(database)
    yield database
    await database.aclose()


@pytest.fixture
async def server(postgres_server: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_server)
    yield connection
    await connection.close()


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


async def test_an_answer_outlives_an_outage_of_the_database(
    database: Database, server: asyncpg.Connection, database_url: str
) -> None:
    pool = ScriptedPool("dear answer", is_held=True)
    handling = asyncio.create_task(build_runner(database, pool).handle(NewMessage(build_message(), "task")))
    await pool.is_thinking(1)
    await close_doors(server, database_url)
    pool.released.set()
    await asyncio.sleep(0.25)
    assert not handling.done()
    await open_doors(server, database_url)
    assert isinstance(await handling, Succeeded)
    assert len(pool.asked) == 1
    superuser = await asyncpg.connect(database_url)
    rows = await superuser.fetch("select body ->> 'content' as content from results")
    assert [row["content"] for row in rows] == ["dear answer"]
    assert await superuser.fetchval("select count(*) from attempts") == 1
    await superuser.close()


async def test_a_message_that_comes_during_an_outage_waits_for_its_end(
    database: Database, server: asyncpg.Connection, database_url: str
) -> None:
    await close_doors(server, database_url)
    handling = asyncio.create_task(build_runner(database, ScriptedPool()).handle(NewMessage(build_message(), "task")))
    await asyncio.sleep(0.15)
    await open_doors(server, database_url)
    assert isinstance(await handling, Succeeded)


@pytest.mark.parametrize("step", ["an answer with \x00 and \ud800", LLMOverloadedError("down \x00 \ud800")])
async def test_what_a_model_says_can_always_be_recorded(
    database: Database, superuser: asyncpg.Connection, step: str | Exception
) -> None:
    catalog = build_catalog(ModelGroup("quality", (deploy("a"),), retries=0))
    pool = Pool(catalog, registry=build_registry({"a": Script([step])}))
    outcome = await build_runner(database, pool).handle(NewMessage(build_message(), "task"))
    assert isinstance(outcome, Succeeded | Parked)
    assert await superuser.fetchval("select count(*) from attempts") == 1
    await pool.aclose()
