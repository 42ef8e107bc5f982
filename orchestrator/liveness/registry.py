"""The table of workers: each enters itself, beats, and leaves. All moments are the database's own."""

from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_FORGET: Final = text(
    "delete from workers where name = :name or node = :node or seen_at < now() - make_interval(secs => :kept_seconds)"
)
_BEAT: Final = text(
    """
    insert into workers (name, node, concurrency, polled_at, is_stopping)
    values (:name, :node, :concurrency, now() - make_interval(secs => :quiet_seconds), :is_stopping)
    on conflict (name) do update
    set seen_at = now(), polled_at = excluded.polled_at, is_stopping = excluded.is_stopping
    """
)
_LEAVE: Final = text("delete from workers where name = :name")
_READ: Final = text(
    """
    select name, node, concurrency, is_stopping,
           extract(epoch from now() - started_at)::double precision as age_seconds,
           extract(epoch from now() - seen_at)::double precision as unseen_seconds,
           extract(epoch from seen_at - polled_at)::double precision as quiet_seconds,
           coalesce(held.jobs, 0) as jobs, held.lease_left_seconds
    from workers left join (
        select worker, count(*) as jobs,
               extract(epoch from min(lease_until) - now())::double precision as lease_left_seconds
        from leases group by worker
    ) held on held.worker = name
    order by node, name
    """
)
_IS_ANY_QUEUED: Final = text("select exists (select from jobs where queued_at is not null)")

KEPT_SECONDS: Final = 24 * 3600.0
"""For so long a worker that was not heard of again can still be seen."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """What a worker is known by."""

    name: str
    """Machine and process: unique among those that live at once."""
    node: str
    """Its name in Celery: the same for the process that takes its place."""
    concurrency: int
    """Jobs it can hold; 0: it does not serve the jobs' queue."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker says of itself with each beat."""

    quiet_seconds: float
    """Since it had got or asked for a job, or had no room for one."""
    is_stopping: bool


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker as the others see it."""

    name: str
    node: str
    concurrency: int
    is_stopping: bool
    age_seconds: float
    unseen_seconds: float
    """Since its last heartbeat."""
    quiet_seconds: float
    """At that heartbeat: since it had got or asked for a job, or had no room for one."""
    jobs: int = 0
    """In hand."""
    lease_left_seconds: float | None = None
    """Of the first to run out; below zero its runs are taken for dead."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All workers, and whether there is work for them."""

    workers: tuple[WorkerSeen, ...]
    has_queued_jobs: bool


async def enter(connection: AsyncConnection, worker: WorkerIdentity, standing: Standing) -> None:
    """Take the place of whoever had the name or the node, and clear away who has long been gone."""
    await connection.execute(_FORGET, {"name": worker.name, "node": worker.node, "kept_seconds": KEPT_SECONDS})
    await beat(connection, worker, standing)


async def beat(connection: AsyncConnection, worker: WorkerIdentity, standing: Standing) -> None:
    """Be seen; whoever was cleared away meanwhile is back with it."""
    await connection.execute(_BEAT, {**asdict(worker), **asdict(standing)})


async def leave(connection: AsyncConnection, name: str) -> None:
    await connection.execute(_LEAVE, {"name": name})


async def read_fleet(connection: AsyncConnection) -> Fleet:
    workers = (await connection.execute(_READ)).mappings()
    has_queued_jobs = bool(await connection.scalar(_IS_ANY_QUEUED))
    return Fleet(tuple(WorkerSeen(**row) for row in workers), has_queued_jobs)
