"""Every query of batches that is made for one tenant: making one, taking lines in, and reading what came of them.

Each function runs inside the caller's transaction and never commits. Lines are taken in by compare-and-swap on how many
are in already, so that two clients, or one that was killed and started again, take each line in once.
"""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.batches.ids import MOST_LINES, build_batch_id, build_job_id, build_message_id, find_last_id
from orchestrator.batches.records import Batch, BatchState, NewBatch, NewLine, RejectedLine, Shape, Totals
from shared.errors import NotFoundError

_COLUMNS = """
    id, tenant_id, name, shape, state, imported_lines, total_lines, settled_lines, limit_usd, parent_id, created_at,
    finished_at
"""

_ADD = text(
    f"""
    insert into batches (id, tenant_id, fingerprint, generation, parent_id, name, shape, options, limit_usd)
    values (:id, :tenant_id, :fingerprint, :generation, :parent_id, :name, :shape, :options, :limit_usd)
    on conflict (tenant_id, fingerprint, generation) do nothing
    returning {_COLUMNS}
    """  # noqa: S608 - a constant
).bindparams(bindparam("options", type_=JSONB))

_FIND_NEWEST = text(
    f"""
    select generation, {_COLUMNS} from batches where fingerprint = :fingerprint order by generation desc limit 1
    """  # noqa: S608 - a constant
)

_FIND = text(f"select {_COLUMNS} from batches where id = :id")  # noqa: S608 - a constant

_LIST = text(
    f"select {_COLUMNS} from batches order by id desc limit :limit"  # noqa: S608 - a constant
)

_FAMILY = text(
    f"select {_COLUMNS} from batches where id = :id or parent_id = :id order by id"  # noqa: S608 - a constant
)

# `queued` without a moment of its own: no message of the broker's waits for these, so no sweep looks for one.
_TAKE_IN = text(
    """
    with batch as (
        update batches set imported_lines = :through
        where id = :batch_id and imported_lines = :before and state = 'importing'
        returning id, tenant_id
    ),
    line as (
        select * from unnest(:job_ids, :message_ids, :bodies) as l (job_id, message_id, body)
    ),
    job as (
        insert into jobs (id, tenant_id, task_id, state, run, batch_id)
        select job_id, tenant_id, job_id::text, 'queued', 0, batch.id from line, batch
    ),
    message as (
        insert into messages (job_id, tenant_id, message_id, body)
        select job_id, tenant_id, message_id, body::jsonb from line, batch
    )
    select exists (select from batch)
    """
).bindparams(
    bindparam("job_ids", type_=ARRAY(Uuid)),
    bindparam("message_ids", type_=ARRAY(Text)),
    bindparam("bodies", type_=ARRAY(Text)),
)

_REJECT = text(
    """
    with line as (
        select * from unnest(:job_ids, :message_ids, :bodies, :results) as l (job_id, message_id, body, result)
    ),
    job as (
        insert into jobs (id, tenant_id, task_id, state, run, batch_id, finished_at)
        select job_id, :tenant_id, job_id::text, 'failed', 0, cast(:batch_id as uuid), now() from line
    ),
    message as (
        insert into messages (job_id, tenant_id, message_id, body)
        select job_id, :tenant_id, message_id, body::jsonb from line
    )
    insert into results (job_id, tenant_id, run, body) select job_id, :tenant_id, 0, result::jsonb from line
    """
).bindparams(
    bindparam("job_ids", type_=ARRAY(Uuid)),
    bindparam("message_ids", type_=ARRAY(Text)),
    bindparam("bodies", type_=ARRAY(Text)),
    bindparam("results", type_=ARRAY(Text)),
)

_END_IMPORT = text(
    """
    update batches set total_lines = imported_lines, state = 'running'
    where id = :batch_id and imported_lines = :lines and state = 'importing'
    returning id
    """
)

_TOTALS = text(
    """
    select coalesce(sum(prompt_tokens), 0) as prompt_tokens, coalesce(sum(completion_tokens), 0) as completion_tokens,
           coalesce(sum(cost_usd), 0) as cost_usd
    from attempts where job_id > :first and job_id <= :last
    """
)

_STATES = text("select state, count(*) from jobs where id > :first and id <= :last group by state")

_REASONS = text(
    """
    select body #>> '{error,type}' as type, count(*) as lines, min(body #>> '{error,message}') as example
    from jobs join results on job_id = id
    where id > :first and id <= :last and state not in ('succeeded', 'queued', 'running', 'parked')
    group by 1 order by 2 desc limit 10
    """
)

_BEGIN_CANCEL = text(
    """
    update batches set state = 'cancelling' where id = :batch_id and state in ('importing', 'running')
    """
)


async def add(connection: AsyncConnection, batch: NewBatch, *, anew: bool) -> Batch:
    """The batch of this input, made unless it is there already; with `anew` it is made in any case."""
    found = (await connection.execute(_FIND_NEWEST, {"fingerprint": batch.fingerprint})).one_or_none()
    if found is not None and not anew:
        return _build(found)
    parameters = {
        **asdict(batch),
        "id": build_batch_id(),
        "generation": 1 if found is None else found.generation + 1,
    }
    made = (await connection.execute(_ADD, parameters)).one_or_none()
    if made is None:  # somebody else did so at this moment
        made = (await connection.execute(_FIND_NEWEST, {"fingerprint": batch.fingerprint})).one()
    return _build(made)


async def find_same(connection: AsyncConnection, fingerprint: str) -> Batch | None:
    """The newest batch of this input."""
    found = (await connection.execute(_FIND_NEWEST, {"fingerprint": fingerprint})).one_or_none()
    return None if found is None else _build(found)


async def get(connection: AsyncConnection, batch_id: UUID) -> Batch:
    """
    Raises:
        NotFoundError: the connection's tenant has no such batch.
    """
    row = (await connection.execute(_FIND, {"id": batch_id})).one_or_none()
    if row is None:
        raise NotFoundError("batch", f"no batch {batch_id}", "`llmyard batch list` shows those there are")
    return _build(row)


async def list_newest(connection: AsyncConnection, limit: int) -> list[Batch]:
    return [_build(row) for row in await connection.execute(_LIST, {"limit": limit})]


async def find_family(connection: AsyncConnection, batch: Batch) -> tuple[Batch, ...]:
    """The batch of the whole input, then those that asked failed lines of it again, the newest last."""
    rows = await connection.execute(_FAMILY, {"id": batch.parent_id or batch.id})
    return tuple(_build(row) for row in rows)


async def take_in(
    connection: AsyncConnection,
    batch: Batch,
    *,
    before: int,
    through: int,
    lines: Sequence[NewLine],
    rejected: Sequence[RejectedLine] = (),
) -> bool:
    """Make jobs of the lines after `before`, up to `through`; False, and nothing made, if it is not their turn."""
    parameters = {"batch_id": batch.id, "before": before, "through": through, **_build_columns(batch.id, lines)}
    if not await connection.scalar(_TAKE_IN, parameters):
        return False
    if rejected:
        columns = _build_columns(batch.id, rejected) | {"results": [line.result for line in rejected]}
        await connection.execute(_REJECT, {"batch_id": batch.id, "tenant_id": batch.tenant_id, **columns})
    return True


async def end_import(connection: AsyncConnection, batch: Batch, lines: int) -> bool:
    """The input has no more lines than these; False if somebody else has seen that too, or ended the batch."""
    return await connection.scalar(_END_IMPORT, {"batch_id": batch.id, "lines": lines}) is not None


async def read_totals(connection: AsyncConnection, batch: Batch, *, through: int = MOST_LINES) -> Totals:
    """What a batch took and gave up to a line, by its attempts; reads a row for each line."""
    span = {"first": batch.id, "last": build_job_id(batch.id, through)}
    row = (await connection.execute(_TOTALS, span)).one()
    states = {state: int(number) for state, number in await connection.execute(_STATES, span)}
    return Totals(states, int(row.prompt_tokens), int(row.completion_tokens), Decimal(row.cost_usd))


async def read_reasons(connection: AsyncConnection, batch: Batch) -> list[tuple[str, int, str]]:
    """Why lines have no answer: the kind of error, how many lines, and one message of its kind."""
    rows = await connection.execute(_REASONS, {"first": batch.id, "last": find_last_id(batch.id)})
    return [(str(row.type), int(row.lines), str(row.example)) for row in rows]


async def begin_cancel(connection: AsyncConnection, batch: Batch) -> None:
    """From now on nothing of it is taken in or fed; nothing happens if it has ended."""
    await connection.execute(_BEGIN_CANCEL, {"batch_id": batch.id})


def _build_columns(batch_id: UUID, lines: Sequence[NewLine] | Sequence[RejectedLine]) -> dict[str, Any]:
    return {
        "job_ids": [build_job_id(batch_id, line.line) for line in lines],
        "message_ids": [build_message_id(batch_id, line.line) for line in lines],
        "bodies": [line.body for line in lines],
    }


def _build(row: Row[Any]) -> Batch:
    values = {name: value for name, value in row._mapping.items() if name != "generation"}
    return Batch(**{**values, "shape": Shape(row.shape), "state": BatchState(row.state)})
