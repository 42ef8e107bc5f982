"""Ends every line of a batch that has not ended: some at a time, by whoever comes by until none is left.

What `orchestrator.cancelling` does to one job, in the same order: the ledger first, then the workers are told, who
close their sockets to the provider. A batch stays `cancelling` until all is done, so that a canceller may be killed.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import ARRAY, Row, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator import dispatch
from orchestrator.batches import store
from orchestrator.batches.ids import build_message_id, find_last_id, read_line
from orchestrator.batches.records import Batch
from orchestrator.failed_requests import store as failed_requests
from orchestrator.jobs.lifecycle import JobState
from orchestrator.outcomes import POLITE_REPLY
from shared.database import Database

LINES_AT_ONCE: Final = 1000

# Locked in a statement of its own: one that waited would not see the run and the lease that a claim just made.
_LOCK = text(
    """
    select id, tenant_id, state from jobs where id > :after and id <= :last and finished_at is null
    order by id limit :limit for update
    """
)

_CANCEL = text(
    """
    with job as (
        update jobs set state = 'cancelled', finished_at = now() where id = any (:job_ids) and finished_at is null
        returning id, tenant_id, run
    ),
    ended_run as (
        update runs set ended_at = now(), outcome = 'cancelled' from job where job_id = job.id and ended_at is null
    ),
    lease as (delete from leases using job where job_id = job.id)
    insert into results (job_id, tenant_id, run, body)
    select id, tenant_id, run, result::jsonb
    from job join unnest(:job_ids, :results) as told (job_id, result) on job_id = id
    """
).bindparams(bindparam("job_ids", type_=ARRAY(Uuid)), bindparam("results", type_=ARRAY(Text)))

_END = text(
    """
    update batches set state = 'cancelled', finished_at = now(), total_lines = coalesce(total_lines, imported_lines)
    where id = :batch_id and state = 'cancelling'
    """
)


async def cancel(database: Database, batch: Batch) -> Batch:
    """End a batch unless it has ended; returns how it then stands."""
    async with database.as_tenant(batch.tenant_id) as connection:
        await store.begin_cancel(connection, batch)
    await finish(database, batch.tenant_id, batch.id)
    async with database.as_tenant(batch.tenant_id) as connection:
        return await store.get(connection, batch.id)


async def finish(database: Database, tenant_id: str, batch_id: UUID) -> None:
    """Take a batch that is being cancelled to its end."""
    after = batch_id
    while True:
        async with database.as_tenant(tenant_id) as connection:
            ended = await _cancel_some(connection, batch_id, after)
        running = [job.id for job in ended if job.state == JobState.RUNNING]
        if running:
            await asyncio.to_thread(dispatch.broadcast_cancel, running)
        if len(ended) < LINES_AT_ONCE:
            return
        after = ended[-1].id


async def _cancel_some(connection: AsyncConnection, batch_id: UUID, after: UUID) -> Sequence[Row[Any]]:
    """The batch itself ends with its last lines."""
    parameters = {"after": after, "last": find_last_id(batch_id), "limit": LINES_AT_ONCE}
    jobs = (await connection.execute(_LOCK, parameters)).all()
    if jobs:
        job_ids = [job.id for job in jobs]
        results = [to_json(_build_result(batch_id, job)).decode() for job in jobs]
        await connection.execute(_CANCEL, {"job_ids": job_ids, "results": results})
        await failed_requests.end_all(connection, job_ids, answered=False)
    if len(jobs) < LINES_AT_ONCE:
        await connection.execute(_END, {"batch_id": batch_id})
    return jobs


def _build_result(batch_id: UUID, job: Row[Any]) -> dict[str, Any]:
    """As `results.build_cancellation` makes it."""
    return {
        "job_id": str(job.id),
        "message_id": build_message_id(batch_id, read_line(job.id)),
        "tenant_id": job.tenant_id,
        "state": JobState.CANCELLED.value,
        "content": POLITE_REPLY,
        "error": {"type": "Cancelled", "message": f"the batch was cancelled while this was {job.state}"},
    }
