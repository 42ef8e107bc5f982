"""Ends parked work without an answer: by hand, or because it waited too long. The job then has a result that says why.

A discard is a compare-and-swap on `parked`, so that it and a replay at the same moment end in exactly one of the two.
Jobs are locked before their failed requests, as everybody else does it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs.endings import NewResult, add_results
from orchestrator.jobs.lifecycle import JobState
from orchestrator.outcomes import POLITE_REPLY, EndedJob

BY_HAND: Final = "Discarded"
TOO_LONG: Final = "ParkedTooLong"
"""What stands as error type in the result of a job that nobody could answer in time."""


# Waits for a lock that another holds: what that other makes of the job decides.
_DISCARD_JOBS = text(
    """
    with job as (
        update jobs set state = 'discarded', finished_at = now()
        where id in (select id from jobs where id = any (:job_ids) and state = 'parked' order by id for update)
          and state = 'parked'
        returning id, tenant_id, task_id, run
    )
    update failed_requests set state = 'discarded', updated_at = now() from job where job_id = job.id
    returning job.*, failed_requests.id as request_id, error_type, error_message,
              extract(epoch from now() - created_at)::double precision as parked_seconds
    """
).bindparams(bindparam("job_ids", type_=ARRAY(Uuid)))

_WAITING_TASKS = text("select job_id, task_id from waiting_tasks where job_id = any (:job_ids)").bindparams(
    bindparam("job_ids", type_=ARRAY(Uuid))
)

_TAKE_EXPIRED_JOBS = text(
    """
    select jobs.id from failed_requests join jobs on jobs.id = job_id and jobs.state = 'parked'
    where failed_requests.state = 'parked'
      and failed_requests.created_at < now() - make_interval(secs => :expires_seconds)
    order by failed_requests.created_at limit :limit for update of jobs skip locked
    """
)

_DISCARD_CALLS = text(
    """
    update failed_calls set state = 'discarded', error_type = :error_type, updated_at = now(),
        error_message = :reason || '; it had been parked because of ' || error_type
    where id in (select id from failed_calls where id = any (:ids) and state = 'parked' order by id for update)
      and state = 'parked'
    returning id
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("reason", type_=Text))

_TAKE_EXPIRED_CALLS = text(
    """
    select id from failed_calls
    where state = 'parked' and created_at < now() - make_interval(secs => :expires_seconds)
    order by created_at limit :limit for update skip locked
    """
)


async def discard_jobs(
    connection: AsyncConnection, job_ids: Sequence[UUID], *, error_type: str, reason: str
) -> list[EndedJob]:
    """End those of the jobs that are parked; the others stay as they are."""
    ended = (await connection.execute(_DISCARD_JOBS, {"job_ids": list(job_ids)})).all()
    if not ended:
        return []
    results = {row.id: build_discard(row, error_type, reason) for row in ended}
    await add_results(connection, [NewResult(row.id, row.tenant_id, row.run, results[row.id]) for row in ended])
    waiting: dict[UUID, list[str]] = {row.id: [row.task_id] for row in ended}
    for row in await connection.execute(_WAITING_TASKS, {"job_ids": list(results)}):
        waiting[row.job_id].append(row.task_id)
    return [EndedJob(results[job_id], tuple(task_ids)) for job_id, task_ids in waiting.items()]


def build_discard(row: Row[Any], error_type: str, reason: str) -> dict[str, Any]:
    """A polite reply for the user, and for whoever looks after the product why there will be no other."""
    waited = f"it had been parked for {timedelta(seconds=round(row.parked_seconds))}"
    return {
        "job_id": str(row.id),
        "tenant_id": row.tenant_id,
        "state": JobState.DISCARDED.value,
        "content": POLITE_REPLY,
        "failed_request_id": str(row.request_id),
        "error": {
            "type": error_type,
            "message": f"{reason}; {waited} because of {row.error_type}: {row.error_message}",
        },
    }


async def discard_calls(connection: AsyncConnection, ids: Sequence[UUID], *, error_type: str, reason: str) -> int:
    """Likewise the library's calls; returns how many it were."""
    parameters = {"ids": list(ids), "error_type": error_type, "reason": reason}
    return len((await connection.execute(_DISCARD_CALLS, parameters)).all())


async def take_expired_jobs(connection: AsyncConnection, *, expires_seconds: float, limit: int) -> Sequence[UUID]:
    """Jobs parked for longer than that since they first were, locked for this transaction; the oldest first."""
    parameters = {"expires_seconds": expires_seconds, "limit": limit}
    return (await connection.scalars(_TAKE_EXPIRED_JOBS, parameters)).all()


async def take_expired_calls(connection: AsyncConnection, *, expires_seconds: float, limit: int) -> Sequence[UUID]:
    """Likewise the library's calls."""
    parameters = {"expires_seconds": expires_seconds, "limit": limit}
    return (await connection.scalars(_TAKE_EXPIRED_CALLS, parameters)).all()
