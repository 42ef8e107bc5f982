"""What goes on beside the jobs of a worker: it is seen while the database is there, and it notices that it is deaf."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from orchestrator.liveness.duty import Cadence, Duty
from orchestrator.liveness.pulse import TURN_SECONDS, Pulse
from orchestrator.liveness.registry import WorkerIdentity
from orchestrator.liveness.stopping import OrderlyStop, StopActions
from shared.database import Database
from tests.fakes.postgres_gate import PostgresGate

QUICK = Cadence(lease_seconds=0.3, silent_seconds=0.3)
SLOW = Cadence(lease_seconds=60, silent_seconds=60)
DEAF_AFTER_SECONDS = 1.3
IDENTITY = WorkerIdentity("m:1", "llmyard@m", 64)


@asynccontextmanager
async def on_duty(
    database: Database, read_backlog: Callable[[], int | None], cadence: Cadence = QUICK
) -> AsyncIterator[Duty]:
    actions = StopActions(drain=lambda: None, hand_back=lambda: 0, abandon=lambda: 0, end=lambda: None)
    stop = OrderlyStop(asyncio.get_running_loop(), actions, grace_seconds=60)
    pulse = Pulse(["celery"], is_full=lambda: False)
    duty = Duty(database, IDENTITY, pulse, stop, cadence, read_backlog)
    yield duty
    await duty.aclose()


async def become(condition: Callable[[], bool]) -> bool:
    for _ in range(100):
        if condition():
            return True
        await asyncio.sleep(0.05)
    return False


async def wait_for(superuser: asyncpg.Connection, query: str) -> bool:
    for _ in range(100):
        if await superuser.fetchval(query):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_worker_is_seen_until_it_takes_its_leave(database: Database, superuser: asyncpg.Connection) -> None:
    async with on_duty(database, lambda: 0) as duty:
        assert await wait_for(superuser, "select seen_at > started_at + interval '0.3 s' from workers")
        assert duty.read_checks() == {"taking": True, "heartbeat": True}
    assert await superuser.fetchval("select count(*) from workers") == 0


async def test_a_database_that_was_away_sees_it_again(
    gate: PostgresGate, gated: Database, superuser: asyncpg.Connection
) -> None:
    await gate.shut()
    async with on_duty(gated, lambda: 0) as duty:
        assert await become(lambda: not duty.read_checks()["heartbeat"])
        await gate.open()
        assert await become(lambda: duty.read_checks()["heartbeat"])
        assert await superuser.fetchval("select count(*) from workers") == 1


async def test_others_see_at_once_that_it_stops(database: Database, superuser: asyncpg.Connection) -> None:
    async with on_duty(database, lambda: 0, SLOW) as duty:
        assert await wait_for(superuser, "select count(*) = 1 from workers")
        duty.stop.begin()
        await asyncio.sleep(0)
        duty.beat_now()
        assert await wait_for(superuser, "select is_stopping from workers")
        assert not duty.read_checks()["taking"]


async def test_a_loop_that_was_held_turns_again(database: Database) -> None:
    async with on_duty(database, lambda: 0, SLOW) as duty:
        await asyncio.sleep(TURN_SECONDS + 0.2)
        assert duty.pulse.has_turned_within(TURN_SECONDS)
        time.sleep(TURN_SECONDS + 0.2)  # noqa: ASYNC251 (that is what a job's code may do)
        assert not duty.pulse.has_turned_within(TURN_SECONDS)
        await asyncio.sleep(0.1)
        assert duty.pulse.has_turned_within(TURN_SECONDS)


async def test_who_misses_messages_that_wait_begins_anew(database: Database) -> None:
    async with on_duty(database, lambda: 3) as duty:
        assert await become(lambda: duty.stop.begins_anew)


@pytest.mark.parametrize("backlog", [0, None], ids=["nothing waits", "the broker answers nobody"])
async def test_who_misses_nothing_does_not(database: Database, backlog: int | None) -> None:
    async with on_duty(database, lambda: backlog) as duty:
        await asyncio.sleep(DEAF_AFTER_SECONDS)
        assert not duty.stop.is_stopping


async def test_who_is_not_answered_where_polls_are_seen_begins_anew_though_nothing_waits(database: Database) -> None:
    async with on_duty(database, lambda: 0) as duty:
        duty.pulse.note_poll(["celery"])
        assert await become(lambda: duty.stop.begins_anew)
