"""Failed requests as people look at them: one list over the jobs' and the library's, and each with what was asked.

The list is read as `system`, which sees no payload; what was asked, and what was said of it, as the tenant.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from string import Template
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_pool.client.failed_requests import State
from orchestrator.failed_requests.drains import CALLS, JOBS, DrainedTable

AnyOperation = Literal["message", "chat", "generate", "embed"]
"""`message` is a job."""

LARGEST_ID: Final = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them to list; None: whichever."""

    state: str | None = None
    tenant_id: str | None = None
    model: str | None = None
    operation: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One failed request, without its payload."""

    id: UUID
    tenant_id: str
    operation: str
    """`message` for a job; `chat`, `generate` or `embed` for a call of the library."""
    model: str
    """Empty where it was parked by a version that did not note it."""
    state: State
    attempts: int
    """Of a job, every try at a provider; of a call, how often it was asked again."""
    error_type: str
    """Of the latest failure."""
    next_try_at: datetime
    created_at: datetime
    """When it failed for the first time."""
    updated_at: datetime
    job_id: UUID | None
    """None: a call of the library."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the list, the newest first."""

    records: tuple[Record, ...]
    next: UUID | None
    """Where the next page begins; None: this is the last."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One try of a job at one deployment."""

    run: int
    position: int
    deployment: str
    model: str
    started_at: datetime
    latency_seconds: float
    error_type: str | None
    error_message: str | None
    cost_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Details:
    """What only its tenant may see of it."""

    error_message: str
    params: Mapping[str, Any]
    """The message, or the request."""
    response: Mapping[str, Any] | None
    """The job's result, or the answer to the call; None: there is none yet."""
    tried: tuple[Tried, ...]
    """Of a job."""


_COLUMNS: Final = {
    JOBS.queue: "job_id, (select count(*) from attempts a where a.job_id = f.job_id)::integer as attempts",
    CALLS.queue: "null::uuid as job_id, tries as attempts",
}
_LIST = Template(
    """
    select id, tenant_id, operation, model, state, error_type, next_try_at, created_at, updated_at, $columns
    from $table f where id < :before and $conditions order by id desc limit :limit
    """
)
_FIND = Template(
    """
    select id, tenant_id, operation, model, state, error_type, next_try_at, created_at, updated_at, $columns
    from $table f where id = :id
    """
)
_FINDS: Final = {of.queue: text(_FIND.substitute(table=of.table, columns=_COLUMNS[of.queue])) for of in (JOBS, CALLS)}

_JOB = text(
    """
    select error_message, messages.body as params, results.body as response
    from failed_requests f
    join messages on messages.job_id = f.job_id
    left join results on results.job_id = f.job_id
    where f.id = :id
    """
)
_CALL = text("select error_message, request as params, response from failed_calls where id = :id")
_TRIED = text(
    """
    select run, position, deployment, model, started_at, latency_seconds, error_type, error_message, cost_usd
    from attempts where job_id = :job_id order by run, position
    """
)
_NEXT_PARKED = Template(
    """
    select id, $key as key from $table
    where state = 'parked' and id > :after and $condition order by id limit :limit
    """
)


async def list_records(connection: AsyncConnection, wanted: Wanted, *, before: UUID | None, limit: int) -> Page:
    """The newest of those that are wanted, of all tenants; needs the system role."""
    found: list[Record] = []
    for of in (JOBS, CALLS):
        found += await _list(connection, of, wanted, before=before or LARGEST_ID, limit=limit + 1)
    newest = sorted(found, key=lambda record: record.id, reverse=True)
    page = tuple(newest[:limit])
    return Page(page, page[-1].id if len(newest) > limit else None)


async def _list(
    connection: AsyncConnection, of: DrainedTable, wanted: Wanted, *, before: UUID, limit: int
) -> list[Record]:
    given = {name: value for name, value in asdict(wanted).items() if value is not None}
    conditions = " and ".join(("true", *(f"{name} = :{name}" for name in given)))
    statement = _LIST.substitute(table=of.table, columns=_COLUMNS[of.queue], conditions=conditions)
    rows = await connection.execute(text(statement), {**given, "before": before, "limit": limit})
    return [Record(**row) for row in rows.mappings()]


async def find(connection: AsyncConnection, request_id: UUID) -> Record | None:
    """One by its id, whoever's it is; needs the system role."""
    for statement in _FINDS.values():
        row = (await connection.execute(statement, {"id": request_id})).mappings().one_or_none()
        if row is not None:
            return Record(**row)
    return None


async def read_details(connection: AsyncConnection, record: Record) -> Details:
    """What was asked and tried, in its tenant's transaction."""
    row = (await connection.execute(_CALL if record.job_id is None else _JOB, {"id": record.id})).one()
    tried = (await connection.execute(_TRIED, {"job_id": record.job_id})).mappings()
    return Details(row.error_message, row.params, row.response, tuple(Tried(**each) for each in tried))


async def list_parked(
    connection: AsyncConnection, of: DrainedTable, *, tenant_id: str | None, after: UUID, limit: int
) -> Mapping[UUID, UUID]:
    """The next that are parked behind an id, of one tenant or of all: what each waits for, by its id."""
    condition = "true" if tenant_id is None else "tenant_id = :tenant_id"
    statement = _NEXT_PARKED.substitute(table=of.table, key=of.key, condition=condition)
    given = {} if tenant_id is None else {"tenant_id": tenant_id}
    rows = await connection.execute(text(statement), {**given, "after": after, "limit": limit})
    return {row.id: row.key for row in rows}
