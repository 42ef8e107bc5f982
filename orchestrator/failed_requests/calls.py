"""Calls of the library that nobody could answer, in Postgres: what `llm_pool.client.failed_requests` asks of a store.

Claims are made as `system`, over all tenants and without what was asked; that is read and written as its tenant. No
transaction is open while a model is asked: a claim is a lease that is renewed meanwhile, and its number the fence.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter
from sqlalchemy import ARRAY, Row, Text, TextClause, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from llm_pool.client.failed_requests import (
    FailedRequest,
    Operation,
    QueueStats,
    State,
    decide_wait_seconds,
    find_retry_after,
    is_request_id,
)
from llm_pool.remote.wire_bodies import CompleteBody, EmbedBody, dump_embedding_request, dump_request
from llm_pool.types import CompletionRequest, CompletionResponse, EmbeddingRequest, EmbeddingResponse, Response
from orchestrator.failed_requests.drains import CALLS, build_choice, save_turn
from orchestrator.failed_requests.stats import as_queue_stats, read_stats
from orchestrator.jobs.leases import BEATS_PER_LEASE
from orchestrator.jobs.lifecycle import MAX_CRASHES
from orchestrator.jobs.outages import begin_sweep, find_spared_seconds
from orchestrator.messages import DEFAULT_TENANT
from shared.database import DATABASE_ERRORS, Database, patiently
from shared.errors import LLMError
from shared.text import make_storable

log = structlog.get_logger()

LEASE_SECONDS: Final = 60.0
"""A replay not heard of for this long is taken for dead; it is renewed three times as often."""
SWEEP: Final = "calls"
"""Of the replays that were left, in `sweeps`."""
_BEFORE_ALL: Final = str(UUID(int=0))

_ADD = text(
    """
    insert into failed_calls (id, tenant_id, operation, model, request, state, error_type, error_message, next_try_at)
    values (:id, :tenant_id, :operation, :model, :request, 'parked', :error_type, :error_message,
            now() + make_interval(secs => :wait_seconds))
    """
).bindparams(bindparam("request", type_=JSONB))

# One that took so many workers down with it is given to no other. What somebody wants at once took none down.
_QUARANTINE = text(
    """
    update failed_calls set state = 'discarded', crash_count = crash_count + 1, lease_until = null, updated_at = now(),
        error_type = 'Quarantined', error_message = (crash_count + 1) || ' replays were never heard of again'
    where state = 'replaying' and lease_until < now() - make_interval(secs => :spared_seconds)
      and lease_until > '-infinity' and crash_count + 1 >= :max_crashes
    """
)

# Each of the three locks what it finds, for the claim that follows. What somebody wants at once, no outage spares.
_NEXT = text(
    """
    select id from failed_calls
    where (state = 'parked' or (state = 'replaying' and (
        lease_until = '-infinity' or lease_until < now() - make_interval(secs => :spared_seconds))))
      and id > :after and model <> all (:besides)
    order by id limit 1 for update skip locked
    """
).bindparams(bindparam("besides", type_=ARRAY(Text)))

_LEFT = text(
    """
    select id from failed_calls where state = 'replaying'
      and (lease_until = '-infinity' or lease_until < now() - make_interval(secs => :spared_seconds))
    order by id limit :limit for update skip locked
    """
)

_DUE = build_choice(
    CALLS,
    """
    due as (
        select id from failed_calls where id in (select key from chosen) and state = 'parked' for update skip locked
    )
    select id from due join chosen on key = id order by round, turn
    """,
)

_CLAIM = text(
    """
    update failed_calls
    set state = 'replaying', tries = tries + 1, updated_at = now(),
        crash_count = crash_count + (state = 'replaying' and lease_until > '-infinity')::integer,
        lease_until = now() + make_interval(secs => :lease_seconds)
    where id = any (:ids)
    returning id, tenant_id
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)))

_RENEW = text(
    """
    update failed_calls set lease_until = now() + make_interval(secs => :lease_seconds)
    where id = :id and tries = :tries and state = 'replaying'
    """
)

_READ = text("select * from failed_calls where id = :id")
_FIND_TENANT = text("select tenant_id from failed_calls where id = :id")

_ANSWER = text(
    """
    update failed_calls set state = 'answered', response = :response, lease_until = null, updated_at = now()
    where id = :id and tries = :tries and state = 'replaying'
    """
).bindparams(bindparam("response", type_=JSONB))

_FAIL = text(
    """
    update failed_calls
    set state = :state, error_type = :error_type, error_message = :error_message, updated_at = now(),
        lease_until = null, next_try_at = now() + make_interval(secs => :wait_seconds)
    where id = :id and tries = :tries and state = 'replaying'
    """
)

_COMPLETION = TypeAdapter(CompletionResponse)
_EMBEDDING = TypeAdapter(EmbeddingResponse)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A call that is this worker's to replay, as far as the system role sees it."""

    id: UUID
    tenant_id: str


class PostgresFailedCalls:
    """Of the whole installation; a request that names no tenant is kept for the default one."""

    def __init__(self, database: Database, *, lease_seconds: float = LEASE_SECONDS) -> None:
        """Closes the database in the end."""
        self._database = database
        self._lease_seconds = lease_seconds

    async def add(self, operation: Operation, request: CompletionRequest | EmbeddingRequest, error: LLMError) -> str:
        request_id = uuid7()
        parameters = {
            "id": request_id,
            "tenant_id": _choose_tenant(request),
            "operation": operation,
            "model": request.model,
            "request": _dump(request),
            **_describe(error, 0),
        }
        async with self._database.as_tenant(_choose_tenant(request)) as connection:
            await connection.execute(_ADD, parameters)
        return str(request_id)

    async def find(self, request_id: str) -> FailedRequest | None:
        if not is_request_id(request_id):
            return None
        async with self._database.as_system() as connection:
            tenant_id = await connection.scalar(_FIND_TENANT, {"id": request_id})
        return None if tenant_id is None else await self._read(tenant_id, request_id)

    async def claim(self, after: str | None, besides: Collection[str]) -> FailedRequest | None:
        async with self._database.as_system() as connection:
            spared_seconds = await find_spared_seconds(connection, SWEEP, self._lease_seconds)
            await _quarantine(connection, spared_seconds)
            parameters = {"after": after or _BEFORE_ALL, "besides": list(besides), "spared_seconds": spared_seconds}
            claimed = await self._claim(connection, (await connection.scalars(_NEXT, parameters)).all())
        return await self.read(claimed[0]) if claimed else None

    async def claim_left(self, connection: AsyncConnection, *, limit: int) -> list[Claimed]:
        """What was never heard of again or is wanted at once, whatever the pace. For the system role; so below."""
        spared_seconds = await begin_sweep(connection, SWEEP, self._lease_seconds)
        await _quarantine(connection, spared_seconds)
        parameters = {"limit": limit, "spared_seconds": spared_seconds}
        return await self._claim(connection, (await connection.scalars(_LEFT, parameters)).all())

    async def claim_due(self, connection: AsyncConnection, model: str, *, limit: int) -> list[Claimed]:
        """Of one model, those whose time has come; the tenants in turn, of each the oldest first."""
        parameters = {"queue": CALLS.queue, "model": model, "limit": limit}
        claimed = await self._claim(connection, (await connection.scalars(_DUE, parameters)).all())
        if claimed:
            await save_turn(connection, CALLS, model, claimed[-1].tenant_id)
        return claimed

    async def read(self, claimed: Claimed) -> FailedRequest:
        """What was asked, as its tenant sees it."""
        return await self._read(claimed.tenant_id, str(claimed.id))

    @asynccontextmanager
    async def hold(self, claimed: FailedRequest, /) -> AsyncIterator[None]:
        """Renew the lease while the block runs; a database that is away for a beat costs that beat only."""
        keeping = asyncio.create_task(self._keep(claimed))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def record_answer(self, claimed: FailedRequest, response: Response) -> None:
        """Repeated until the database takes it: it was paid for."""
        adapter: TypeAdapter[Any] = _EMBEDDING if claimed.operation == "embed" else _COMPLETION
        parameters = {"id": claimed.id, "tries": claimed.tries, "response": adapter.dump_python(response, mode="json")}
        await self._record(_ANSWER, claimed, parameters)

    async def record_failure(self, claimed: FailedRequest, error: Exception, state: State) -> None:
        """Repeated likewise: else it would be taken for one whose worker died."""
        parameters = {"id": claimed.id, "tries": claimed.tries, "state": state, **_describe(error, claimed.tries)}
        await self._record(_FAIL, claimed, parameters)

    async def read_stats(self) -> QueueStats:
        async with self._database.as_system() as connection:
            return as_queue_stats(await read_stats(connection, CALLS))

    async def aclose(self) -> None:
        await self._database.aclose()

    async def _record(self, statement: TextClause, claimed: FailedRequest, parameters: Mapping[str, Any]) -> None:
        async def record() -> None:
            async with self._database.as_tenant(_choose_tenant(claimed.request)) as connection:
                await connection.execute(statement, parameters)

        await patiently(record)

    async def _keep(self, claimed: FailedRequest) -> None:
        parameters = {"id": claimed.id, "tries": claimed.tries, "lease_seconds": self._lease_seconds}
        while True:
            await asyncio.sleep(self._lease_seconds / BEATS_PER_LEASE)
            try:
                async with self._database.as_system() as connection:
                    await connection.execute(_RENEW, parameters)
            except DATABASE_ERRORS as error:
                log.warning("heartbeat_missed", error=str(error), runs=1)

    async def _claim(self, connection: AsyncConnection, ids: Sequence[UUID]) -> list[Claimed]:
        rows = await connection.execute(_CLAIM, {"ids": list(ids), "lease_seconds": self._lease_seconds})
        tenants = {row.id: row.tenant_id for row in rows}
        return [Claimed(id_, tenants[id_]) for id_ in ids]

    async def _read(self, tenant_id: str, request_id: str) -> FailedRequest:
        async with self._database.as_tenant(tenant_id) as connection:
            return _load((await connection.execute(_READ, {"id": request_id})).one())


async def _quarantine(connection: AsyncConnection, spared_seconds: float | None) -> None:
    await connection.execute(_QUARANTINE, {"max_crashes": MAX_CRASHES, "spared_seconds": spared_seconds})


def _choose_tenant(request: CompletionRequest | EmbeddingRequest) -> str:
    return request.tenant_id or DEFAULT_TENANT


def _dump(request: CompletionRequest | EmbeddingRequest) -> dict[str, Any]:
    if isinstance(request, EmbeddingRequest):
        return dump_embedding_request(request)
    return dump_request(request)


def _describe(error: Exception, tries: int) -> Mapping[str, str | float]:
    return {
        "error_type": type(error).__name__,
        "error_message": make_storable(str(error)),
        "wait_seconds": decide_wait_seconds(find_retry_after(error), tries),
    }


def _load(row: Row[Any]) -> FailedRequest:
    is_embedding = row.operation == "embed"
    body = (EmbedBody if is_embedding else CompleteBody).model_validate(row.request)
    adapter: TypeAdapter[Any] = _EMBEDDING if is_embedding else _COMPLETION
    return FailedRequest(
        id=str(row.id),
        operation=row.operation,
        request=body.to_request(),
        state=row.state,
        tries=row.tries,
        error_type=row.error_type,
        error_message=row.error_message,
        next_try_at=row.next_try_at,
        response=None if row.response is None else adapter.validate_python(row.response),
    )
