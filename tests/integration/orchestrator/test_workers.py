"""The table of workers, and what `/ready` and `llmyard status` make of it."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from orchestrator.api.app import open_api
from orchestrator.liveness import registry
from orchestrator.liveness.registry import Standing, WorkerIdentity, WorkerSeen
from shared.database import Database
from shared.settings import Settings
from tests.builders import build_message
from tests.fakes.postgres_gate import PostgresGate
from tests.fakes.uvicorn_server import serve_app
from tests.ledger import Jobs

Client = aiohttp.ClientSession
WORKER = WorkerIdentity("m:1", "llmyard@m", 64)
WELL = Standing(quiet_seconds=0.5, is_stopping=False)
AGE = "update workers set (seen_at, polled_at) = (seen_at - $2::interval, polled_at - $2::interval) where name = $1"


@pytest.fixture
async def client(gate: PostgresGate, database: Database, broker: str) -> AsyncIterator[Client]:
    app = await open_api(Settings(database_url=gate.url, redis_url=broker))
    async with serve_app(app) as url, Client(url) as client:
        yield client


async def enter(database: Database, worker: WorkerIdentity = WORKER, standing: Standing = WELL) -> None:
    async with database.as_system() as connection:
        await registry.enter(connection, worker, standing)


async def beat(database: Database, standing: Standing) -> None:
    async with database.as_system() as connection:
        await registry.beat(connection, WORKER, standing)


async def read(database: Database) -> tuple[WorkerSeen, ...]:
    async with database.as_system() as connection:
        return (await registry.read_fleet(connection)).workers


async def age(superuser: asyncpg.Connection, name: str, seconds: float) -> None:
    await superuser.execute(AGE, name, timedelta(seconds=seconds))


async def ready(client: Client) -> tuple[int, dict[str, Any]]:
    async with client.get("/ready") as response:
        return response.status, await response.json()


async def test_a_worker_is_seen_as_it_last_said(database: Database) -> None:
    await enter(database)
    await beat(database, Standing(quiet_seconds=7.0, is_stopping=True))
    (seen,) = await read(database)
    assert (seen.name, seen.node, seen.concurrency, seen.is_stopping) == ("m:1", "llmyard@m", 64, True)
    assert seen.quiet_seconds == pytest.approx(7.0)
    assert 0 <= seen.unseen_seconds < 5


async def test_its_jobs_are_counted(database: Database, jobs: Jobs) -> None:
    await enter(database, WorkerIdentity("w-1", "llmyard@m", 64))
    await jobs.start()
    assert await jobs.add_and_claim(build_message(id="another"))
    (seen,) = await read(database)
    assert seen.jobs == 2
    assert seen.lease_left_seconds == pytest.approx(30, abs=5)


async def test_who_takes_the_place_of_another_replaces_it(database: Database) -> None:
    await enter(database)
    await enter(database, WorkerIdentity("m:2", "llmyard@m", 64))
    await enter(database, WorkerIdentity("n:1", "llmyard@n", 64))
    assert [worker.name for worker in await read(database)] == ["m:2", "n:1"]


async def test_who_was_replaced_by_mistake_is_back_with_its_next_beat(database: Database) -> None:
    await enter(database)
    await enter(database, WorkerIdentity("m:2", "llmyard@m", 64))
    await beat(database, WELL)
    assert [worker.name for worker in await read(database)] == ["m:1", "m:2"]


async def test_a_new_life_of_the_same_process_begins_anew(database: Database, superuser: asyncpg.Connection) -> None:
    await enter(database, standing=Standing(0.0, is_stopping=True))
    await superuser.execute("update workers set started_at = now() - interval '1 hour'")
    await enter(database)
    (seen,) = await read(database)
    assert (seen.is_stopping, seen.age_seconds < 5) == (False, True)


async def test_who_has_long_been_gone_is_cleared_away(database: Database, superuser: asyncpg.Connection) -> None:
    for name, seconds in (("old:1", registry.KEPT_SECONDS + 1), ("lost:1", registry.KEPT_SECONDS - 60)):
        await enter(database, WorkerIdentity(name, name, 64))
        await age(superuser, name, seconds)
    await enter(database)
    assert [worker.name for worker in await read(database)] == ["m:1", "lost:1"]


async def test_taking_leave(database: Database) -> None:
    await enter(database)
    async with database.as_system() as connection:
        await registry.leave(connection, WORKER.name)
    assert await read(database) == ()


async def test_ready_when_all_work(client: Client, database: Database) -> None:
    await enter(database)
    assert await ready(client) == (200, {"database": True, "broker": True, "workers": True, "faults": []})


async def test_not_ready_while_a_worker_neither_gets_nor_asks(client: Client, database: Database) -> None:
    await enter(database)
    await beat(database, Standing(quiet_seconds=61.0, is_stopping=False))
    status, told = await ready(client)
    assert (status, told["workers"]) == (503, False)
    assert told["faults"][0].startswith("Worker llmyard@m (m:1) lives but has neither got nor asked for a job")
    await beat(database, WELL)
    assert (await ready(client))[0] == 200


async def test_not_ready_while_a_worker_is_not_heard_of(
    client: Client, database: Database, superuser: asyncpg.Connection
) -> None:
    await enter(database)
    await age(superuser, "m:1", 61)
    status, told = await ready(client)
    assert (status, len(told["faults"])) == (503, 1)
    await age(superuser, "m:1", 600)
    assert (await ready(client))[0] == 200, "after a while it is one that once was"


async def test_not_ready_while_jobs_are_queued_and_nobody_serves_them(
    client: Client, database: Database, jobs: Jobs
) -> None:
    assert (await ready(client))[0] == 200
    assert await jobs.add(build_message())
    status, told = await ready(client)
    assert (status, told["faults"]) == (
        503,
        ["Jobs are queued and no worker serves them: start one with `llmyard worker`."],
    )
    await enter(database)
    assert (await ready(client))[0] == 200


async def test_not_ready_without_a_broker(client: Client, no_broker: None) -> None:
    assert await ready(client) == (503, {"database": True, "broker": False, "workers": True, "faults": []})


async def test_alive_though_not_ready_without_a_database(client: Client, gate: PostgresGate) -> None:
    await gate.shut()
    assert await ready(client) == (503, {"database": False, "broker": True, "workers": False, "faults": []})
    async with client.get("/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    await gate.open()
    assert (await ready(client))[0] == 200


async def test_status_ends_with_the_faults_and_tells_by_its_exit_status(
    database: Database, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("DATABASE_URL", database_url), ("REDIS_URL", redis_url), ("LLMYARD_DATA_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    await enter(database, standing=Standing(quiet_seconds=75.0, is_stopping=False))
    command = (sys.executable, "-m", "orchestrator.cli.main", "status")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    shown = (await process.communicate())[0].decode()
    assert process.returncode == 1
    assert "silent for 75 s" in shown
    (fault,) = shown.strip().splitlines()[-1:]
    assert fault.startswith("Worker llmyard@m (m:1) lives but has neither got")
