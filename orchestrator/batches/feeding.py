"""Feeds open batches to the workers, a bounded number of slices at a time, and sees when they have ended.

The broker holds few slices, however large a batch: it may be flushed, and interactive work goes first anyway. What was
lost with it is found here too: everything was sent, the queue is empty, and jobs still wait. Run by the beat schedule
and by whoever watches a batch; twice at the same moment is harmless, since rows are locked and skipped.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.batches import cancelling
from orchestrator.batches.ids import build_job_id, read_line
from orchestrator.batches.records import SLICE_LINES, BatchState, Slice
from shared.database import Database

MOST_SLICES: Final = 400
"""So many wait on the broker's queue for bulk work: more than a fleet on one machine does between two sweeps."""
LOST_SECONDS: Final = 15.0
"""Nothing was fed for so long, nothing is on the queue, and yet jobs wait: their slice was lost."""
LINES_LOOKED_AT_A_SECOND: Final = 10_000
"""A look for lost jobs reads every line that may be open; larger batches are looked at less often."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A batch that has not ended."""

    id: UUID
    tenant_id: str
    state: BatchState
    imported_lines: int
    total_lines: int | None
    fed_line: int
    settled_lines: int
    quiet_seconds: float
    """Since something of it was last fed, or looked for."""


_FIND_OPEN = text(
    """
    select id, tenant_id, state, imported_lines, total_lines, fed_line, settled_lines,
           extract(epoch from now() - fed_at)::double precision as quiet_seconds
    from batches where finished_at is null order by fed_at limit 100 for update skip locked
    """
)

_FIRST_OPEN_JOB = text(
    """
    select id from jobs where id > :after and id <= :last and finished_at is null order by id limit 1
    """
)

_WAITING_JOBS = text(
    """
    select id from jobs where id > :after and id <= :last and state = 'queued' order by id limit :limit
    """
)

_NOTE = text(
    """
    update batches
    set settled_lines = :settled_lines, fed_line = :fed_line, fed_at = case when :is_fed then now() else fed_at end,
        state = :state, finished_at = case when :is_final then now() end
    where id = :batch_id
    """
)


async def feed(database: Database, backlog: int | None) -> list[Slice]:
    """What to put on the queue for bulk work now, after the commit that this makes; ends batches whose lines have.

    `backlog` is the number of slices on that queue; None, which feeds nothing, if it could not be asked.
    """
    async with database.as_system() as connection:
        found = [_build(row) for row in await connection.execute(_FIND_OPEN)]
        open_batches = [batch for batch in found if batch.state is not BatchState.CANCELLING]
        slices: list[Slice] = []
        for place, batch in enumerate(open_batches):
            room = decide_room(backlog, len(slices), waiting_batches=len(open_batches) - place)
            slices += await _feed_one(connection, batch, room, is_queue_empty=backlog == 0)
    for batch in found:
        if batch.state is BatchState.CANCELLING:
            await cancelling.finish(database, batch.tenant_id, batch.id)
    return slices


def decide_room(backlog: int | None, taken: int, *, waiting_batches: int) -> int:
    """How many slices the next batch may send: an equal share of what is left."""
    if backlog is None:
        return 0
    return max(0, -(-(MOST_SLICES - backlog - taken) // waiting_batches))


def decide_look_seconds(open_lines: int) -> float:
    """How long nothing must have been fed before lost jobs are looked for among so many lines."""
    return LOST_SECONDS + open_lines / LINES_LOOKED_AT_A_SECOND


async def _feed_one(connection: AsyncConnection, batch: _Open, room: int, *, is_queue_empty: bool) -> list[Slice]:
    settled_lines = await _find_settled(connection, batch)
    is_done = settled_lines == batch.total_lines
    looks = is_queue_empty and not is_done and _is_overdue(batch)
    after = settled_lines if looks else batch.fed_line
    job_ids = await _find_waiting(connection, batch, after, room * SLICE_LINES)
    fed_line = batch.fed_line
    if room:
        # Fewer than there is room for: everything that waits is among them.
        is_all = len(job_ids) < room * SLICE_LINES
        fed_line = max(fed_line, batch.imported_lines if is_all else read_line(job_ids[-1]))
    await _note(connection, batch, settled_lines, fed_line, is_fed=bool(job_ids) or looks, is_done=is_done)
    starts = range(0, len(job_ids), SLICE_LINES)
    return [Slice(batch.tenant_id, tuple(job_ids[start : start + SLICE_LINES])) for start in starts]


def _is_overdue(batch: _Open) -> bool:
    """All was fed long ago, so a job that waits has no slice."""
    wait_seconds = decide_look_seconds(batch.imported_lines - batch.settled_lines)
    return batch.fed_line == batch.imported_lines and batch.quiet_seconds > wait_seconds


async def _find_settled(connection: AsyncConnection, batch: _Open) -> int:
    """Up to which line all have ended; reads no further than the first that has not."""
    parameters = {
        "after": build_job_id(batch.id, batch.settled_lines),
        "last": build_job_id(batch.id, batch.imported_lines),
    }
    first_open = await connection.scalar(_FIRST_OPEN_JOB, parameters)
    return batch.imported_lines if first_open is None else read_line(first_open) - 1


async def _find_waiting(connection: AsyncConnection, batch: _Open, after_line: int, limit: int) -> list[UUID]:
    if not limit or after_line == batch.imported_lines:
        return []
    parameters = {
        "after": build_job_id(batch.id, after_line),
        "last": build_job_id(batch.id, batch.imported_lines),
        "limit": limit,
    }
    return list((await connection.scalars(_WAITING_JOBS, parameters)).all())


async def _note(
    connection: AsyncConnection, batch: _Open, settled_lines: int, fed_line: int, *, is_fed: bool, is_done: bool
) -> None:
    if not is_fed and not is_done and (settled_lines, fed_line) == (batch.settled_lines, batch.fed_line):
        return
    parameters = {
        "batch_id": batch.id,
        "settled_lines": settled_lines,
        "fed_line": fed_line,
        "is_fed": is_fed,
        "is_final": is_done,
        "state": (BatchState.DONE if is_done else batch.state).value,
    }
    await connection.execute(_NOTE, parameters)


def _build(row: Row[Any]) -> _Open:
    return _Open(**{**row._mapping, "state": BatchState(row.state)})
