"""A lease lives as long as its run, through a beat that is missed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from benchmarks.chaos.proxy import Proxy
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.reconcile import reconcile
from orchestrator.wiring import open_worker
from shared.database import Database, create_engine
from shared.settings import Settings
from tests.fakes.postgres_gate import PostgresGate
from tests.ledger import Jobs

SHORT = "update leases set lease_until = now() + interval '1 second'"


@asynccontextmanager
async def beating(database: Database, lease_seconds: float = 1) -> AsyncIterator[LeaseKeeper]:
    keeper = LeaseKeeper(database, lease_seconds=lease_seconds)
    beating = asyncio.create_task(keeper.keep())
    yield keeper
    beating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beating


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[LeaseKeeper]:
    async with beating(database) as keeper:
        yield keeper


async def seconds_left(superuser: asyncpg.Connection) -> float:
    return float(await superuser.fetchval("select extract(epoch from lease_until - now()) from leases"))


async def test_a_lease_is_kept_past_its_length(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection, keeper: LeaseKeeper
) -> None:
    claim = await jobs.start()
    await superuser.execute(SHORT)
    with keeper.hold(claim):
        await asyncio.sleep(1.3)
        assert await seconds_left(superuser) > 0
        assert (await reconcile(database, lease_seconds=0, backlog=0)).waiting == []


async def test_a_run_that_was_let_go_is_not_kept(
    jobs: Jobs, superuser: asyncpg.Connection, keeper: LeaseKeeper
) -> None:
    claim = await jobs.start()
    await superuser.execute(SHORT)
    with keeper.hold(claim):
        pass
    await asyncio.sleep(0.5)
    assert await seconds_left(superuser) < 0.6


async def test_missed_beats_are_made_up_for(
    gated: Database, gate: PostgresGate, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    with capture_logs() as logs:
        async with beating(gated) as keeper:
            with keeper.hold(claim):
                await asyncio.sleep(0.4)
                await gate.shut()
                await asyncio.sleep(0.5)
                await gate.open()
                await asyncio.sleep(0.4)
                assert await seconds_left(superuser) > 0.3
    assert {entry["event"] for entry in logs} - {"rollback_failed"} == {"heartbeat_missed"}


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    (directory,) = parse_qs(urlsplit(database_url).query)["host"]
    with Proxy(partial(asyncio.open_unix_connection, f"{directory}/.s.PGSQL.5432")) as proxy:
        yield proxy


@pytest.fixture
async def behind_proxy(proxy: Proxy, database_url: str) -> AsyncIterator[Database]:
    engine = create_engine(f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(database_url).path}", pool_size=1)
    database = Database(engine, engine)
    yield database
    await database.aclose()


async def test_a_connection_that_died_without_a_word_costs_no_lease(
    behind_proxy: Database, proxy: Proxy, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    claim = await jobs.start()
    async with beating(behind_proxy, lease_seconds=3) as keeper:
        with keeper.hold(claim):
            await asyncio.sleep(1.3)
            proxy.strand()
            await asyncio.sleep(3.2)
            assert await seconds_left(superuser) > 0


async def test_a_beat_waits_for_nobody_who_has_all_the_connections(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection, database_url: str
) -> None:
    """As when many runs end at once, and the database is slow to write them down."""
    claim = await jobs.start()
    settings = Settings(database_url=database_url, llmyard_lease_seconds=1, llmyard_mock_when_no_provider=True)
    parts = await open_worker(settings)
    async with AsyncExitStack() as busy:
        for _ in range(6):
            await busy.enter_async_context(parts.database.as_system())
        with parts.leases.hold(claim):
            await superuser.execute(SHORT)
            await asyncio.sleep(1.3)
            assert await seconds_left(superuser) > 0
    await parts.aclose()


async def test_a_lost_lease_is_told(jobs: Jobs, superuser: asyncpg.Connection, keeper: LeaseKeeper) -> None:
    claim = await jobs.start()
    with keeper.hold(claim), capture_logs() as logs:
        await superuser.execute("update leases set run = 2")
        await asyncio.sleep(0.5)
    assert {"event": "lease_lost", "job_id": str(claim.job_id), "run": 1, "log_level": "warning"} in logs
