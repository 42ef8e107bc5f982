"""Reads what has come of a batch, in the order of its lines, a page at a time.

A line stands in the newest batch that has asked it. Only what is finished without a gap behind a given line is read:
what comes later may still change.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.batches.ids import build_job_id, find_last_id, read_line
from orchestrator.batches.records import Answer, Batch

# Looked up one by one: joined, a planner that knows little of new rows might read all messages there are.
_RESULTS = text(
    """
    select job_id, body::text as body, extract(epoch from created_at)::bigint as created,
           (select messages.body #>> '{channel_metadata,custom_id}' from messages where job_id = results.job_id)
               as custom_id
    from results where job_id > :after and job_id <= :last order by job_id limit :limit
    """
)

# Of a batch that asks again: which lines it has, answered or not.
_ASKED_AGAIN = text(
    """
    select id as job_id, results.body::text as body, extract(epoch from results.created_at)::bigint as created,
           (select messages.body #>> '{channel_metadata,custom_id}' from messages where job_id = id) as custom_id
    from jobs left join results on job_id = id where id > :after and id <= :last order by id
    """
)

_COUNT = text("select count(*) from results where job_id > :after and job_id <= :last")


async def read_answers(connection: AsyncConnection, family: Sequence[Batch], after: int, limit: int) -> list[Answer]:
    """The next lines behind `after` that have ended, as far as there is no gap among them.

    `family` is the batch of the whole input, then those that asked lines of it again.
    """
    root, *retries = family
    rows = await _read(connection, root.id, after, limit)
    newest = dict(takewhile(lambda each: root.id.int + each[0] == each[1].job_id.int, enumerate(rows, start=after + 1)))
    for retry in retries if newest else ():
        newest |= await _read_again(connection, retry.id, after, after + len(newest))
    return [_build(line, row) for line, row in takewhile(lambda each: each[1].body is not None, newest.items())]


async def count_behind(connection: AsyncConnection, batch_id: UUID, after: int) -> int:
    """How many lines behind `after` have ended, gaps or not; reads an index entry for each."""
    span = {"after": build_job_id(batch_id, after), "last": find_last_id(batch_id)}
    return int(await connection.scalar(_COUNT, span) or 0)


async def _read(connection: AsyncConnection, batch_id: UUID, after: int, limit: int) -> Sequence[Row[Any]]:
    span = {"after": build_job_id(batch_id, after), "last": find_last_id(batch_id), "limit": limit}
    return (await connection.execute(_RESULTS, span)).all()


async def _read_again(connection: AsyncConnection, batch_id: UUID, after: int, last: int) -> dict[int, Row[Any]]:
    span = {"after": build_job_id(batch_id, after), "last": build_job_id(batch_id, last)}
    return {read_line(row.job_id): row for row in await connection.execute(_ASKED_AGAIN, span)}


def _build(line: int, row: Row[Any]) -> Answer:
    return Answer(line, row.custom_id, from_json(row.body), row.created)
