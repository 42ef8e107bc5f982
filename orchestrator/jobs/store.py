"""Every query on one job: taking it in, claiming it, recording what became of it, reading it.

Each function runs inside the caller's transaction and never commits. Whoever holds the latest run number of a job in
state `running` owns it; every write of an outcome is a compare-and-swap on exactly that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs.lifecycle import JobState
from orchestrator.messages import Message
from shared.attempts import Attempt
from shared.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """Who claims, and for how long."""

    worker: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Claim:
    """Leave to run a job until the lease ends; `run` is the fencing token."""

    job_id: UUID
    tenant_id: str
    task_id: str
    run: int
    message: Message


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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends, and the state it leaves its job in."""

    state: JobState
    outcome: str
    result: dict[str, Any] | None = None
    error_type: str | None = None
    error_message: str | None = None
    attempts: Sequence[Attempt] = ()


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
        insert into jobs (id, tenant_id, task_id, state, run, worker, lease_until)
        select job_id, :tenant_id, :task_id, :state, :run, cast(:worker as text),
               case when :state = 'running' then now() + make_interval(secs => :lease_seconds) end
        from message returning id
    ),
    first_run as (
        insert into runs (job_id, number, tenant_id, worker)
        select id, :run, :tenant_id, cast(:worker as text) from job where :state = 'running'
    )
    select exists (select from tenant) as tenant_is_known, exists (select from job) as is_new
    """
).bindparams(bindparam("body", type_=JSONB))

_FIND_ID = text("select job_id from messages where tenant_id = :tenant_id and message_id = :message_id")

_CLAIM = text(
    """
    with job as (
        update jobs set state = 'running', run = run + 1, worker = :worker,
                        lease_until = now() + make_interval(secs => :lease_seconds)
        where id = :job_id and state = 'queued'
        returning id, tenant_id, task_id, run
    ),
    new_run as (insert into runs (job_id, number, tenant_id, worker) select id, run, tenant_id, :worker from job)
    select job.*, body from job join messages on job_id = id
    """
)

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

_RECORD = text(
    """
    with job as (
        update jobs set state = :state, worker = null, lease_until = null, dispatched_at = now(),
                        finished_at = case when :is_final then now() end
        where id = :job_id and run = :run and state = 'running'
        returning id
    ),
    ended_run as (
        update runs set ended_at = now(), error_type = :error_type, error_message = :error_message,
                        outcome = case when exists (select from job) then :outcome else 'stale' end
        where job_id = :job_id and number = :run and ended_at is null
    ),
    paid as (
        insert into attempts (job_id, run, tenant_id, position, deployment, provider, model, started_at,
                              latency_seconds, prompt_tokens, completion_tokens, error_type, error_message)
        select :job_id, :run, :tenant_id, a.* from jsonb_to_recordset(:attempts) as a (
            position integer, deployment text, provider text, model text, started_at timestamptz,
            latency_seconds double precision, prompt_tokens integer, completion_tokens integer,
            error_type text, error_message text)
        on conflict (job_id, run, position) do nothing
    ),
    answer as (
        insert into results (job_id, tenant_id, run, body)
        select id, :tenant_id, :run, :result from job where :is_final
    )
    select exists (select from job)
    """
).bindparams(bindparam("attempts", type_=JSONB), bindparam("result", type_=JSONB(none_as_null=True)))

_WAITING_TASKS = text("select task_id from waiting_tasks where job_id = :job_id")

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

_FIND_TENANT = text("select tenant_id from jobs where id = :job_id")


async def add(connection: AsyncConnection, job_id: UUID, message: Message, task_id: str) -> bool:
    """Take a message in as a queued job; False when the tenant has sent this message before.

    Raises:
        NotFoundError: no such tenant.
    """
    return await _add(connection, job_id, message, task_id, None)


async def add_and_claim(
    connection: AsyncConnection, job_id: UUID, message: Message, task_id: str, terms: ClaimTerms
) -> Claim | None:
    """Take a message in and claim its first run at once; None when the tenant has sent it before.

    Raises:
        NotFoundError: no such tenant.
    """
    is_new = await _add(connection, job_id, message, task_id, terms)
    return Claim(job_id, message.tenant_id, task_id, 1, message) if is_new else None


async def _add(
    connection: AsyncConnection, job_id: UUID, message: Message, task_id: str, terms: ClaimTerms | None
) -> bool:
    parameters = {
        "job_id": job_id,
        "tenant_id": message.tenant_id,
        "message_id": message.id,
        "body": message.model_dump(mode="json"),
        "task_id": task_id,
        "state": JobState.RUNNING.value if terms else JobState.QUEUED.value,
        "run": 1 if terms else 0,
        "worker": terms and terms.worker,
        "lease_seconds": terms.lease_seconds if terms else 0.0,
    }
    row = (await connection.execute(_ADD, parameters)).one()
    if not row.tenant_is_known:
        raise NotFoundError("tenant_id", f"no tenant {message.tenant_id!r}", "add it with `llmyard agents load`")
    return bool(row.is_new)


async def find_id(connection: AsyncConnection, tenant_id: str, message_id: str) -> UUID | None:
    """The job that a tenant's message became."""
    found = await connection.scalar(_FIND_ID, {"tenant_id": tenant_id, "message_id": message_id})
    return found if isinstance(found, UUID) else None


async def claim(connection: AsyncConnection, job_id: UUID, terms: ClaimTerms) -> Claim | None:
    """Start the next run of a queued job; None when it is not queued."""
    parameters = {"job_id": job_id, "worker": terms.worker, "lease_seconds": terms.lease_seconds}
    row = (await connection.execute(_CLAIM, parameters)).one_or_none()
    if row is None:
        return None
    return Claim(row.id, row.tenant_id, row.task_id, row.run, Message.model_validate(row.body))


async def wait_for(connection: AsyncConnection, job_id: UUID, task_id: str) -> None:
    """Let a further Celery task have the answer too; nothing happens when the job is finished."""
    await connection.execute(_WAIT_FOR, {"job_id": job_id, "task_id": task_id})


async def record(connection: AsyncConnection, claimed: Claim, ending: Ending) -> bool:
    """Write down how a run ended; False when it no longer owned the job. What it paid is kept either way."""
    parameters = {
        "job_id": claimed.job_id,
        "tenant_id": claimed.tenant_id,
        "run": claimed.run,
        "state": ending.state.value,
        "is_final": ending.state.is_final,
        "outcome": ending.outcome,
        "result": ending.result,
        "error_type": ending.error_type,
        "error_message": ending.error_message,
        "attempts": [_attempt_row(*numbered) for numbered in enumerate(ending.attempts, start=1)],
    }
    return bool(await connection.scalar(_RECORD, parameters))


def _attempt_row(position: int, attempt: Attempt) -> dict[str, Any]:
    return {
        "position": position,
        "deployment": attempt.deployment,
        "provider": attempt.provider,
        "model": attempt.model,
        "started_at": attempt.started_at.isoformat(),
        "latency_seconds": attempt.latency_seconds,
        "prompt_tokens": attempt.usage and attempt.usage.prompt_tokens,
        "completion_tokens": attempt.usage and attempt.usage.completion_tokens,
        "error_type": attempt.error_type,
        "error_message": attempt.error_message,
    }


async def find_waiting_tasks(connection: AsyncConnection, job_id: UUID) -> tuple[str, ...]:
    """The further Celery tasks that wait for this job's answer."""
    return tuple((await connection.scalars(_WAITING_TASKS, {"job_id": job_id})).all())


async def find(connection: AsyncConnection, job_id: UUID) -> JobRecord | None:
    """A job of the connection's tenant, as a poller sees it."""
    row = (await connection.execute(_FIND, {"job_id": job_id})).mappings().one_or_none()
    return None if row is None else JobRecord(**{**row, "state": JobState(row["state"])})


async def find_tenant(connection: AsyncConnection, job_id: UUID) -> str | None:
    """Whose job it is; for the system role, which may look across tenants."""
    found = await connection.scalar(_FIND_TENANT, {"job_id": job_id})
    return None if found is None else str(found)
