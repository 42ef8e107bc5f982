"""Queries over many jobs at once, for the system role: keeping leases alive, and finding what got stuck.

A broker may lose any message and a worker may die at any point; these statements are what makes either harmless.
Each may run twice at the same moment: locked rows are skipped. None reads a job that merely waits, so that a million
of them cost a sweep nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs.lifecycle import MAX_CRASHES, JobState


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job that a worker should be told of."""

    job_id: UUID
    tenant_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class Expired:
    """A job whose run was never heard of again, in the state it was given."""

    job_id: UUID
    tenant_id: str
    task_id: str
    state: JobState
    run: int
    crash_count: int

    @property
    def waiting(self) -> Waiting:
        return Waiting(self.job_id, self.tenant_id, self.task_id)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How regularly a sweep has run: what tells an outage from a dead worker."""

    calm_seconds: float
    """Since there last was a gap; in a gap nobody could have renewed a lease either."""
    gap_seconds: float | None
    """Since the sweep before this one; None if it is the first."""


_RENEW = text(
    """
    update leases set lease_until = now() + make_interval(secs => :lease_seconds)
    from unnest(:job_ids, :runs) as mine (id, number)
    where job_id = mine.id and run = mine.number
    returning job_id
    """
).bindparams(bindparam("job_ids", type_=ARRAY(Uuid)), bindparam("runs", type_=ARRAY(Integer)))

_CANCELLED = text("select id from jobs where id = any (:job_ids) and state = 'cancelled'").bindparams(
    bindparam("job_ids", type_=ARRAY(Uuid))
)

_FIND_HOLDERS = text("select distinct worker from leases")

_END = text(
    """
    update leases set lease_until = now()
    where job_id in (
        select job_id from leases where worker = any (:workers) and lease_until > now() for update skip locked
    )
    """
).bindparams(bindparam("workers", type_=ARRAY(Text)))

_BEGIN = text(
    """
    with before as (select ran_at from sweeps where name = :name)
    insert into sweeps (name, ran_at, calm_since) values (:name, now(), now())
    on conflict (name) do update
    set ran_at = now(),
        calm_since = case when sweeps.ran_at < now() - make_interval(secs => :gap_seconds) then now()
                          else sweeps.calm_since end
    returning extract(epoch from now() - calm_since)::double precision as calm_seconds,
              extract(epoch from now() - (select ran_at from before))::double precision as gap_seconds
    """
)

_FIND_RHYTHM = text(
    """
    select extract(epoch from now() - calm_since)::double precision as calm_seconds,
           extract(epoch from now() - ran_at)::double precision as gap_seconds
    from sweeps where name = :name
    """
)

# The job's row is locked before its lease, as everybody else does it; a lease renewed at the last moment stays.
_EXPIRE = text(
    """
    with overdue as (
        select id, leases.run from leases join jobs on id = job_id and jobs.run = leases.run and state = 'running'
        where lease_until < now() - make_interval(secs => :spared_seconds)
        order by lease_until limit :limit for update of jobs skip locked
    ),
    lost as (
        delete from leases using overdue
        where job_id = id and leases.run = overdue.run and lease_until < now() - make_interval(secs => :spared_seconds)
        returning job_id
    ),
    job as (
        update jobs
        set state = case when crash_count + 1 >= :max_crashes then 'quarantined' else 'queued' end,
            finished_at = case when crash_count + 1 >= :max_crashes then now() end,
            crash_count = crash_count + 1, dispatched_at = now()
        from lost where id = lost.job_id
        returning id, tenant_id, task_id, state, run, crash_count
    ),
    ended_run as (
        update runs set ended_at = now(), outcome = 'expired' from job
        where job_id = job.id and number = job.run and ended_at is null
    )
    select * from job
    """
)

_COUNT_QUEUED = text("select count(*) from (select from jobs where queued_at is not null limit :limit) counted")

_NEWEST_IN_HAND = text(
    """
    select max(dispatched_at) from leases
    join jobs on id = leases.job_id
    join runs on runs.job_id = leases.job_id and number = leases.run
    where started_at > dispatched_at
    """
)

_UNDELIVERED = text(
    """
    update jobs set dispatched_at = now()
    where id in (
        select id from jobs
        where queued_at < coalesce(cast(:before as timestamptz), now()) - make_interval(secs => :after_seconds)
        order by queued_at limit :limit for update skip locked
    )
    returning id, tenant_id, task_id
    """
)


async def renew_leases(
    connection: AsyncConnection, runs: Collection[tuple[UUID, int]], *, lease_seconds: float
) -> frozenset[UUID]:
    """One heartbeat for all runs of a worker process; returns the jobs that are still its own."""
    parameters = {
        "job_ids": [job_id for job_id, _ in runs],
        "runs": [run for _, run in runs],
        "lease_seconds": lease_seconds,
    }
    return frozenset((await connection.scalars(_RENEW, parameters)).all())


async def find_cancelled(connection: AsyncConnection, job_ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of the jobs that were cancelled."""
    return frozenset((await connection.scalars(_CANCELLED, {"job_ids": list(job_ids)})).all())


async def find_holders(connection: AsyncConnection) -> list[str]:
    """The workers that hold leases."""
    return list((await connection.scalars(_FIND_HOLDERS)).all())


async def end_leases(connection: AsyncConnection, workers: Collection[str]) -> int:
    """Of workers that are gone: their jobs wait for the next sweep only. Returns how many they were."""
    return (await connection.execute(_END, {"workers": list(workers)})).rowcount


async def begin(connection: AsyncConnection, name: str, *, longest_gap_seconds: float) -> Rhythm:
    """Note that a sweep runs now, and tell how it has run up to now. Two at once go one after the other."""
    row = (await connection.execute(_BEGIN, {"name": name, "gap_seconds": longest_gap_seconds})).one()
    return Rhythm(row.calm_seconds, row.gap_seconds)


async def find_rhythm(connection: AsyncConnection, name: str) -> Rhythm | None:
    """As it would be if the sweep ran now; None if it never has."""
    row = (await connection.execute(_FIND_RHYTHM, {"name": name})).one_or_none()
    return None if row is None else Rhythm(row.calm_seconds, row.gap_seconds)


async def expire_leases(connection: AsyncConnection, *, spared_seconds: float, limit: int) -> list[Expired]:
    """Take back jobs whose lease ran out `spared_seconds` ago: queued again, or quarantined after too many crashes."""
    parameters = {"spared_seconds": spared_seconds, "limit": limit, "max_crashes": MAX_CRASHES}
    rows = await connection.execute(_EXPIRE, parameters)
    return [Expired(row.id, row.tenant_id, row.task_id, JobState(row.state), row.run, row.crash_count) for row in rows]


async def count_queued(connection: AsyncConnection, *, limit: int) -> int:
    """Jobs that wait for a worker; counted no further than the limit."""
    return int(await connection.scalar(_COUNT_QUEUED, {"limit": limit}) or 0)


async def find_newest_in_hand(connection: AsyncConnection) -> datetime | None:
    """When the one was dispatched that was dispatched last among the jobs that came from the queue and run now."""
    found = await connection.scalar(_NEWEST_IN_HAND)
    return found if isinstance(found, datetime) else None


async def take_undelivered(
    connection: AsyncConnection, *, before: datetime | None, after_seconds: float, limit: int
) -> list[Waiting]:
    """Queued jobs dispatched `after_seconds` before a moment (None: now) or earlier; they count as dispatched now."""
    parameters = {"before": before, "after_seconds": after_seconds, "limit": limit}
    rows = await connection.execute(_UNDELIVERED, parameters)
    return [Waiting(row.id, row.tenant_id, row.task_id) for row in rows]
