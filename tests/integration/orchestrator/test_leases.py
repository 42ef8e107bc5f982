"""A lease lives as long as its run, through a beat that is missed."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.reconcile import reconcile
from shared.database import Database
from tests.databases import close_doors, open_doors
from tests.ledger import Jobs

SHORT = "update jobs set lease_until = now() + interval '1 second'"


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[LeaseKeeper]:
    keeper = LeaseKeeper(database, lease_seconds=1)
    beating = asyncio.create_task(keeper.keep())
    yield keeper
    beating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beating


async def seconds_left(superuser: asyncpg.Connection) -> float:
    return float(await superuser.fetchval("select extract(epoch from lease_until - now()) from jobs"))


async def test_a_lease_is_kept_past_its_length(
    database: Database, jobs: Jobs, superuser: asyncpg.Connection, keeper: LeaseKeeper
) -> None:
    claim = await jobs.start()
    await superuser.execute(SHORT)
    with keeper.hold(claim):
        await asyncio.sleep(1.3)
        assert await seconds_left(superuser) > 0
        assert (await reconcile(database)).waiting == []


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
    jobs: Jobs, keeper: LeaseKeeper, postgres_server: str, database_url: str
) -> None:
    server = await asyncpg.connect(postgres_server)
    claim = await jobs.start()
    with keeper.hold(claim), capture_logs() as logs:
        await close_doors(server, database_url)
        await asyncio.sleep(0.7)
        await open_doors(server, database_url)
        await asyncio.sleep(0.4)
    await server.close()
    superuser = await asyncpg.connect(database_url)
    # Renewed for one second, where it had been claimed for thirty.
    assert await seconds_left(superuser) < 1
    assert [entry["event"] for entry in logs] == ["heartbeat_missed"] * 2
    await superuser.close()


async def test_a_lost_lease_is_told(jobs: Jobs, superuser: asyncpg.Connection, keeper: LeaseKeeper) -> None:
    claim = await jobs.start()
    with keeper.hold(claim), capture_logs() as logs:
        await superuser.execute("update jobs set run = 2")
        await asyncio.sleep(0.5)
    assert {"event": "lease_lost", "job_id": str(claim.job_id), "run": 1, "log_level": "warning"} in logs
