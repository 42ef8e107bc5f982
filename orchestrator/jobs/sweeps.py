"""Queries over many jobs at once, for the system role: keeping leases alive, and finding what got stuck.

A broker may lose any message and a worker may die at any point; these three statements are what makes either harmless.
Each may run twice at the same moment: locked rows are skipped.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
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


_RENEW = text(
    """
    update jobs set lease_until = now() + make_interval(secs => :lease_seconds)
    from unnest(:job_ids, :runs) as mine (job_id, number)
    where id = mine.job_id and run = mine.number and state = 'running'
    returning id
    """
).bindparams(bindparam("job_ids", type_=ARRAY(Uuid)), bindparam("runs", type_=ARRAY(Integer)))

_EXPIRE = text(
    """
    with expired as (
        select id from jobs where finished_at is null and state = 'running' and lease_until < now()
        order by created_at limit :limit for update skip locked
    ),
    job as (
        update jobs
        set state = case when crash_count + 1 >= :max_crashes then 'quarantined' else 'queued' end,
            finished_at = case when crash_count + 1 >= :max_crashes then now() end,
            crash_count = crash_count + 1, worker = null, lease_until = null, dispatched_at = now()
        where id in (select id from expired)
        returning id, tenant_id, task_id, state, run, crash_count
    ),
    ended_run as (
        update runs set ended_at = now(), outcome = 'expired' from job
        where job_id = job.id and number = job.run and ended_at is null
    )
    select * from job
    """
)

_UNDELIVERED = text(
    """
    update jobs set dispatched_at = now()
    where id in (
        select id from jobs
        where finished_at is null and state = 'queued' and dispatched_at < now() - make_interval(secs => :after_seconds)
        order by created_at limit :limit for update skip locked
    )
    returning id, tenant_id, task_id
    """
)

_ADD_RESULT = text(
    "insert into results (job_id, tenant_id, run, body) values (:job_id, :tenant_id, :run, :result)"
).bindparams(bindparam("result", type_=JSONB))


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


async def expire_leases(connection: AsyncConnection, *, limit: int) -> list[Expired]:
    """Take back jobs whose lease ran out: queued again, or quarantined after too many crashes."""
    rows = await connection.execute(_EXPIRE, {"limit": limit, "max_crashes": MAX_CRASHES})
    return [Expired(row.id, row.tenant_id, row.task_id, JobState(row.state), row.run, row.crash_count) for row in rows]


async def add_result(connection: AsyncConnection, job: Expired, result: dict[str, Any]) -> None:
    """What a poller gets of a job that was quarantined."""
    parameters = {"job_id": job.job_id, "tenant_id": job.tenant_id, "run": job.run, "result": result}
    await connection.execute(_ADD_RESULT, parameters)


async def take_undelivered(connection: AsyncConnection, *, after_seconds: float, limit: int) -> list[Waiting]:
    """Queued jobs that no worker claimed in time: their message may be lost. They count as dispatched from now."""
    rows = await connection.execute(_UNDELIVERED, {"after_seconds": after_seconds, "limit": limit})
    return [Waiting(row.id, row.tenant_id, row.task_id) for row in rows]
