"""Every query on one job but its claim (in `claims`) and its end (in `endings`): taking it in, waiting, reading it.

Each function runs inside the caller's transaction and never commits. Whoever holds the latest run number of a job in
state `running` owns it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.statements import fetch
from orchestrator.messages import Message
from shared.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Claim:
    """Leave to run a job until the lease ends; `run` is the fencing token."""

    job_id: UUID
    tenant_id: str
    task_id: str
    run: int
    message: Message
    crash_count: int = 0
    """Runs before this one that ended without an outcome."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as a poller sees it."""

    job_id: UUID
    tenant_id: str
    task_id: str
    message_id: str
    state: JobState
    run: int
    created_at: datetime
    finished_at: datetime | None
    result: dict[str, Any] | None
    """Only in a final state."""
    failed_request_id: UUID | None
    """Where it waits, or waited, if it was ever parked."""
    next_try_at: datetime | None


# No foreign key from jobs to tenants: a row lock on the one tenant row at every insert would queue all of its jobs.
_ADD = text(
    """
    with tenant as (select id from tenants where id = :tenant_id),
    message as (
        insert into messages (job_id, tenant_id, message_id, body)
        select :job_id, id, :message_id, :body from tenant
        on conflict (tenant_id, message_id) do nothing
        returning job_id
    ),
    job as (
        insert into jobs (id, tenant_id, task_id, state)
        select job_id, :tenant_id, :task_id, 'queued' from message returning id
    )
    select exists (select from tenant) as tenant_is_known, exists (select from job) as is_new
    """
).bindparams(bindparam("body", type_=JSONB))

_FIND_ID = text("select job_id from messages where tenant_id = :tenant_id and message_id = :message_id")

# The row lock decides against a completion at the same moment: either it is seen here, or it sees the waiting task.
_WAIT_FOR = text(
    """
    with job as (
        select id, tenant_id from jobs
        where id = :job_id and finished_at is null and task_id <> :task_id for update
    )
    insert into waiting_tasks (job_id, task_id, tenant_id) select id, :task_id, tenant_id from job
    on conflict do nothing
    """
)

_WAITING_TASKS = text("select task_id from waiting_tasks where job_id = :job_id")

_WAITING_TASKS_OF = text("select job_id, task_id from waiting_tasks where job_id = any (cast(:job_ids as uuid[]))")

_FIND = text(
    """
    select jobs.id as job_id, jobs.tenant_id, task_id, message_id, jobs.state, jobs.run, jobs.created_at, finished_at,
           results.body as result, failed_requests.id as failed_request_id,
           case when jobs.state = 'parked' then next_try_at end as next_try_at
    from jobs
    join messages on messages.job_id = jobs.id
    left join results on results.job_id = jobs.id
    left join failed_requests on failed_requests.job_id = jobs.id
    where jobs.id = :job_id
    """
)

_FIND_OPEN = text(
    """
    select id, tenant_id from jobs
    where task_id = any (:task_ids) and batch_id is null and finished_at is null order by id
    """
).bindparams(bindparam("task_ids", type_=ARRAY(Text)))

_FIND_TENANT = text("select tenant_id from jobs where id = :job_id")


async def add(connection: AsyncConnection, job_id: UUID, message: Message, task_id: str) -> bool:
    """Take a message in as a queued job; False when the tenant has sent this message before.

    Raises:
        NotFoundError: no such tenant.
    """
    parameters = {
        "job_id": job_id,
        "tenant_id": message.tenant_id,
        "message_id": message.id,
        "body": message.model_dump(mode="json"),
        "task_id": task_id,
    }
    row = (await connection.execute(_ADD, parameters)).one()
    if not row.tenant_is_known:
        raise NotFoundError("tenant_id", f"no tenant {message.tenant_id!r}", "add it with `llmyard agents load`")
    return bool(row.is_new)


async def find_id(connection: AsyncConnection, tenant_id: str, message_id: str) -> UUID | None:
    """The job that a tenant's message became."""
    found = await connection.scalar(_FIND_ID, {"tenant_id": tenant_id, "message_id": message_id})
    return found if isinstance(found, UUID) else None


async def wait_for(connection: AsyncConnection, job_id: UUID, task_id: str) -> None:
    """Let a further Celery task have the answer too; nothing happens when the job is finished."""
    await connection.execute(_WAIT_FOR, {"job_id": job_id, "task_id": task_id})


async def find_waiting_tasks(connection: AsyncConnection, job_id: UUID) -> tuple[str, ...]:
    """The further Celery tasks that wait for this job's answer."""
    return tuple((await connection.scalars(_WAITING_TASKS, {"job_id": job_id})).all())


async def find_waiting_tasks_of(connection: AsyncConnection, job_ids: Sequence[UUID]) -> dict[UUID, tuple[str, ...]]:
    """Likewise of many jobs; those that nobody else waits for are absent."""
    waiting: defaultdict[UUID, tuple[str, ...]] = defaultdict(tuple)
    for job_id, task_id in await fetch(connection, _WAITING_TASKS_OF, {"job_ids": job_ids}):
        waiting[job_id] += (task_id,)
    return dict(waiting)


async def find(connection: AsyncConnection, job_id: UUID) -> JobRecord | None:
    """A job of the connection's tenant, as a poller sees it."""
    row = (await connection.execute(_FIND, {"job_id": job_id})).mappings().one_or_none()
    return None if row is None else JobRecord(**{**row, "state": JobState(row["state"])})


async def get(connection: AsyncConnection, job_id: UUID) -> JobRecord:
    """
    Raises:
        NotFoundError: the connection's tenant has no such job.
    """
    if job := await find(connection, job_id):
        return job
    raise _build_not_found(job_id)


async def get_tenant(connection: AsyncConnection, job_id: UUID) -> str:
    """Whose job it is; for the system role, which may look across tenants.

    Raises:
        NotFoundError: nobody has such a job.
    """
    if tenant_id := await connection.scalar(_FIND_TENANT, {"job_id": job_id}):
        return str(tenant_id)
    raise _build_not_found(job_id)


async def find_open(connection: AsyncConnection, task_ids: Sequence[str]) -> list[tuple[UUID, str]]:
    """Jobs that are not finished, with their tenants, by their Celery tasks; for the system role."""
    rows = await connection.execute(_FIND_OPEN, {"task_ids": list(task_ids)})
    return [(row.id, row.tenant_id) for row in rows]


def _build_not_found(job_id: UUID) -> NotFoundError:
    return NotFoundError("id", f"no job {job_id}", "use the id that was returned when it was submitted")
