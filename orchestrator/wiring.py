"""The only place where parts are put together: settings in, working objects out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from llm_pool import assembly
from llm_pool.call import CompletionPool
from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, load_catalog
from llm_pool.client.client import Client
from llm_pool.client.config import read_config
from llm_pool.client.failed_requests import FailedRequestQueue
from llm_pool.client.pools import ClientPools
from llm_pool.policies import CooldownPolicy
from llm_pool.status.metrics import Metrics, open_metrics
from llm_pool.stores.cooldowns.base import CooldownStore
from llm_pool.stores.cooldowns.memory import MemoryCooldowns
from llm_pool.stores.cooldowns.redis import RedisCooldowns
from llm_pool.stores.statuses.base import StatusStore
from llm_pool.stores.statuses.memory import MemoryStatuses
from llm_pool.stores.statuses.redis import RedisStatuses
from orchestrator.agents.runner import Runner
from orchestrator.cancelling import Canceller
from orchestrator.failed_requests.call_replays import CallReplayer
from orchestrator.failed_requests.calls import PostgresFailedCalls
from orchestrator.failed_requests.drainer import Drainer
from orchestrator.front_door import FrontDoor
from orchestrator.group_commit import GroupCommit
from orchestrator.isolation.suspects import Suspects
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.liveness.process_names import build_worker_name
from orchestrator.pools import open_pool
from orchestrator.reconcile import free_predecessors
from orchestrator.recorder import Recorder
from orchestrator.workload import Workload
from shared.clock import SystemClock
from shared.database import Database, create_engine, patiently
from shared.redis_client import open_redis
from shared.settings import Settings, find_secret


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What one worker process works with."""

    settings: Settings
    database: Database
    pool: CompletionPool
    suspects: Suspects
    leases: LeaseKeeper
    beating: Database
    """The heartbeat's own connection to the same database."""
    workload: Workload
    runner: Runner
    canceller: Canceller
    call_replayer: CallReplayer
    drainer: Drainer
    heartbeat: asyncio.Task[None]
    metrics: Metrics | None
    """None: nobody could read them."""

    async def aclose(self) -> None:
        self.heartbeat.cancel()
        await self.suspects.aclose()
        await self.drainer.aclose()
        await self.call_replayer.aclose()
        await self.pool.aclose()
        await self.beating.aclose()
        await self.database.aclose()


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the pools of the fleet tell one another and others."""

    statuses: StatusStore
    cooldowns: CooldownStore


async def open_worker(settings: Settings) -> WorkerParts:
    """Everything a worker needs, checked before its first job.

    Raises:
        ConfigurationError: what is missing or wrong, in one sentence.
    """
    metrics = open_metrics(settings.prometheus_multiproc_dir) if settings.wants_metrics else None
    database = await open_database(settings)
    await patiently(lambda: free_predecessors(database))
    pool = await open_pool(settings, metrics)
    # A beat must not wait behind what hundreds of runs write down.
    beating = _build_database(settings, tenant_connections=1, system_connections=1)
    # Looked up when it is called: keeper and runner each need the other.
    leases = LeaseKeeper(
        beating, lease_seconds=settings.llmyard_lease_seconds, interrupt=lambda job_ids: runner.interrupt(job_ids)
    )
    suspects = Suspects(lease_seconds=settings.llmyard_lease_seconds)
    ledger = GroupCommit(database, worker=build_worker_name(), lease_seconds=settings.llmyard_lease_seconds)
    workload = Workload(settings.llmyard_concurrency)
    recorder = Recorder(database, ledger)
    runner = Runner(database, pool, leases, recorder, ledger=ledger, suspects=suspects, workload=workload)
    call_replayer = CallReplayer(database, pool)
    drainer = Drainer(database, call_replayer, expires_seconds=settings.llmyard_parked_expires_seconds)
    heartbeat = asyncio.create_task(leases.keep())
    return WorkerParts(
        settings,
        database,
        pool,
        suspects,
        leases,
        beating,
        workload,
        runner,
        Canceller(database),
        call_replayer,
        drainer,
        heartbeat,
        metrics,
    )


async def open_client(settings: Settings) -> Client:
    """A client as scripts have it, whose failed requests outlive it.

    Raises:
        ConfigurationError: what is missing or wrong, in one sentence.
    """
    calls = PostgresFailedCalls(await open_database(settings))
    config = read_config(settings)
    pools = ClientPools(config, build_pool=partial(assembly.build_pool, settings))
    return Client(config, queue=FailedRequestQueue(calls), pools=pools)


async def open_database(settings: Settings) -> Database:
    """A database whose working roles are bound by row-level security.

    Raises:
        ConfigurationError: it cannot be reached, or its roles are not safe to work under.
    """
    # Far fewer than a worker's jobs: each needs a connection only for a few milliseconds.
    database = _build_database(settings, tenant_connections=20, system_connections=6)
    await database.verify_roles()
    return database


def _build_database(settings: Settings, *, tenant_connections: int, system_connections: int) -> Database:
    """Each connection is made when it is first needed."""
    app_url = settings.database_app_url or settings.require_database_url()
    system_url = settings.database_system_url or settings.require_database_url()
    return Database(
        create_engine(app_url, pool_size=tenant_connections), create_engine(system_url, pool_size=system_connections)
    )


@asynccontextmanager
async def open_fleet_view(settings: Settings, cooldown: CooldownPolicy | None = None) -> AsyncIterator[FleetView]:
    """For whoever looks from outside; without a Redis nobody can have told anything."""
    policy, clock = cooldown or CooldownPolicy(), SystemClock()
    if settings.redis_url is None:
        yield FleetView(MemoryStatuses(), MemoryCooldowns(policy, clock))
        return
    async with aclosing(open_redis(settings.redis_url)) as client:
        yield FleetView(RedisStatuses(client), RedisCooldowns(client, policy, clock))


def build_front_door(settings: Settings, database: Database) -> FrontDoor:
    """The door of the API and the command line; needs no provider's key."""
    return FrontDoor(database, load_catalog(settings.llmyard_config or DEFAULT_CATALOG, find_secret))
