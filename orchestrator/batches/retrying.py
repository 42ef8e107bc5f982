"""Asks the lines of a batch again that have no answer, as a batch of its own.

A job's final state never changes, so each such line gets a new job, of the same number, in a batch that names the first
one as its parent. Whoever writes the answers out takes each line from the newest batch that has it.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.batches import store
from orchestrator.batches.ids import build_job_id, build_message_id, find_last_id, read_line
from orchestrator.batches.purses import build_purse
from orchestrator.batches.records import Batch, NewBatch
from shared.database import Database
from shared.errors import ConflictError

LINES_AT_ONCE: Final = 1000

# A line that never ran was refused as it came in, and would be again.
_FAILED = text(
    """
    select id from jobs
    where id > :after and id <= :last and state in ('failed', 'cancelled', 'discarded', 'quarantined')
      and (run > 0 or state <> 'failed')
    order by id limit :limit
    """
)

_COPY = text(
    """
    with batch as (
        update batches set imported_lines = :through
        where id = :batch_id and imported_lines = :before and state = 'importing'
        returning id, tenant_id
    ),
    line as (
        select * from unnest(:old_ids, :new_ids, :message_ids) as l (old_id, job_id, message_id)
    ),
    job as (
        insert into jobs (id, tenant_id, task_id, state, run, batch_id)
        select job_id, tenant_id, job_id::text, 'queued', 0, batch.id from line, batch
    )
    insert into messages (job_id, tenant_id, message_id, body)
    select line.job_id, batch.tenant_id, line.message_id,
           body || jsonb_build_object('id', line.message_id, 'purse', cast(:purse as jsonb))
    from batch, line join messages on messages.job_id = old_id
    """
).bindparams(
    bindparam("old_ids", type_=ARRAY(Uuid)),
    bindparam("new_ids", type_=ARRAY(Uuid)),
    bindparam("message_ids", type_=ARRAY(Text)),
    bindparam("purse", type_=JSONB(none_as_null=True)),
)


@dataclass(frozen=True, slots=True)
class Retry:
    """What is asked again."""

    batch: Batch
    lines: int


async def retry_failed(database: Database, batch: Batch, limit_usd: Decimal | None) -> Retry | None:
    """Ask all failed lines of the newest batch of this input again; None if it has none.

    Started again after it was interrupted, it goes on where it was.

    Raises:
        ConflictError: it has not ended yet.
    """
    async with database.as_tenant(batch.tenant_id) as connection:
        family = await store.find_family(connection, batch)
        newest = family[-1]
        if newest.parent_id and newest.total_lines is None:
            return Retry(newest, await _copy_all(database, family[-2], newest))
        if not newest.state.is_final:
            raise ConflictError("batch", f"{newest.id} is {newest.state.value}", "wait for its end, or cancel it")
        if not await _find_failed(connection, newest, newest.id, limit=1):
            return None
        again = await store.add(connection, _build_new(family[0], newest, limit_usd), anew=False)
    return Retry(again, await _copy_all(database, newest, again))


def _build_new(root: Batch, newest: Batch, limit_usd: Decimal | None) -> NewBatch:
    """One and the same however often it is asked for, as the batch that failed is in its fingerprint."""
    return NewBatch(
        tenant_id=root.tenant_id,
        name=root.name,
        fingerprint=f"again:{newest.id}",
        shape=root.shape,
        limit_usd=limit_usd,
        parent_id=root.id,
    )


async def _copy_all(database: Database, old: Batch, new: Batch) -> int:
    """Counts what is copied now."""
    before, copied = new.imported_lines, 0
    while True:
        async with database.as_tenant(new.tenant_id) as connection:
            old_ids = await _find_failed(connection, old, build_job_id(old.id, before), limit=LINES_AT_ONCE)
            if not old_ids:
                await store.end_import(connection, new, before)
                return copied
            await connection.execute(_COPY, _build_copy(new, before, old_ids))
        before, copied = read_line(old_ids[-1]), copied + len(old_ids)


async def _find_failed(connection: AsyncConnection, batch: Batch, after: UUID, *, limit: int) -> list[UUID]:
    parameters = {"after": after, "last": find_last_id(batch.id), "limit": limit}
    return list((await connection.scalars(_FAILED, parameters)).all())


def _build_copy(new: Batch, before: int, old_ids: list[UUID]) -> dict[str, Any]:
    lines = [read_line(old_id) for old_id in old_ids]
    return {
        "batch_id": new.id,
        "before": before,
        "through": lines[-1],
        "old_ids": old_ids,
        "new_ids": [build_job_id(new.id, line) for line in lines],
        "message_ids": [build_message_id(new.id, line) for line in lines],
        "purse": build_purse(new.id, new.limit_usd),
    }
