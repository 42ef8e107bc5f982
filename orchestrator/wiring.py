"""The only place where parts are put together: settings in, working objects out."""

import asyncio
import os
import socket
from dataclasses import dataclass

from llm_pool.call import CompletionPool
from llm_pool.catalog_file import DEFAULT_CATALOG, load_catalog
from llm_pool.pool import Pool
from llm_pool.remote import RemotePool
from llm_pool.startup import choose_catalog
from orchestrator.agents.runner import Runner
from orchestrator.front_door import FrontDoor
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.recorder import Recorder
from shared.database import Database, create_engine
from shared.settings import Settings, find_secret


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What one worker process works with."""

    settings: Settings
    database: Database
    pool: CompletionPool
    leases: LeaseKeeper
    runner: Runner
    heartbeat: asyncio.Task[None]

    async def aclose(self) -> None:
        self.heartbeat.cancel()
        await self.pool.aclose()
        await self.database.aclose()


async def open_worker(settings: Settings) -> WorkerParts:
    """Everything a worker needs, checked before its first job.

    Raises:
        ConfigurationError: what is missing or wrong, in one sentence.
    """
    database = await open_database(settings)
    pool = await open_pool(settings)
    leases = LeaseKeeper(database, lease_seconds=settings.llmyard_lease_seconds)
    runner = Runner(database, pool, leases, Recorder(database), worker=build_worker_name())
    return WorkerParts(settings, database, pool, leases, runner, heartbeat=asyncio.create_task(leases.keep()))


async def open_pool(settings: Settings) -> CompletionPool:
    """The pool service where one is named, else a pool in this process.

    Raises:
        ConfigurationError: no provider is configured or in reach.
    """
    if settings.llm_pool_url:
        return RemotePool(settings.llm_pool_url)
    return Pool(await choose_catalog(settings.llmyard_config, find_secret, settings.llmyard_mock_when_no_provider))


async def open_database(settings: Settings) -> Database:
    """A database whose working roles are bound by row-level security.

    Raises:
        ConfigurationError: it cannot be reached, or its roles are not safe to work under.
    """
    app_url = settings.database_app_url or settings.require_database_url()
    system_url = settings.database_system_url or settings.require_database_url()
    # Far fewer than a worker's jobs: each needs a connection only for a few milliseconds.
    database = Database(create_engine(app_url, pool_size=20), create_engine(system_url, pool_size=3))
    await database.verify_roles()
    return database


def build_front_door(settings: Settings, database: Database) -> FrontDoor:
    """The door of the API and the command line; needs no provider's key."""
    return FrontDoor(database, load_catalog(settings.llmyard_config or DEFAULT_CATALOG, find_secret))


def build_worker_name() -> str:
    """Unique among workers that live at once."""
    return f"{socket.gethostname()}:{os.getpid()}"
