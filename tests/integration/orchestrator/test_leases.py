"""A lease lives as long as its run, through a beat that is missed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.reconcile import reconcile
from shared.database import Database
from tests.fakes.postgres_gate import PostgresGate
from tests.ledger import Jobs

SHORT = "update leases set lease_until = now() + interval '1 second'"


@asynccontextmanager
async def beating(database: Database) -> AsyncIterator[LeaseKeeper]:
    keeper = LeaseKeeper(database, lease_seconds=1)
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


async def test_a_lost_lease_is_told(jobs: Jobs, superuser: asyncpg.Connection, keeper: LeaseKeeper) -> None:
    claim = await jobs.start()
    with keeper.hold(claim), capture_logs() as logs:
        await superuser.execute("update leases set run = 2")
        await asyncio.sleep(0.5)
    assert {"event": "lease_lost", "job_id": str(claim.job_id), "run": 1, "log_level": "warning"} in logs
