"""What people do by hand with failed requests: look, replay at once, discard. For the API and the command line.

Each change is a compare-and-swap in the ledger; workers and waiting Celery tasks are told after its commit.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import ARRAY, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator import dispatch
from orchestrator.failed_requests import discards, records, stats
from orchestrator.failed_requests.discards import BY_HAND
from orchestrator.failed_requests.drains import CALLS, JOBS
from orchestrator.failed_requests.records import Details, Page, Record, Wanted
from orchestrator.failed_requests.replay import send_back
from orchestrator.failed_requests.stats import StateCount
from orchestrator.jobs.sweeps import Waiting
from shared.database import Database
from shared.errors import ConflictError, NotFoundError
from shared.text import make_storable

log = structlog.get_logger()

BATCH: Final = 500
"""Most that are sent back in one transaction."""
MAX_REASON_CHARACTERS: Final = 500
_BEFORE_ALL: Final = UUID(int=0)

# With a lease that ran out before all time any worker may take it at once, and no crash is counted.
_WANT_CALLS = text(
    """
    update failed_calls set state = 'replaying', lease_until = '-infinity', updated_at = now()
    where id in (select id from failed_calls where id = any (:ids) and state = 'parked' order by id for update)
      and state = 'parked'
    returning id
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)))


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of sending many back."""

    count: int
    has_more: bool
    """The bound was reached before the end."""


class FailedRequestDesk:
    """Over all tenants: whoever can reach the API or the database decides for all of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_some(self, wanted: Wanted, *, before: UUID | None = None, limit: int = 50) -> Page:
        """The newest first."""
        async with self._database.as_system() as connection:
            return await records.list_records(connection, wanted, before=before, limit=limit)

    async def read_stats(self) -> list[StateCount]:
        """By state and age."""
        async with self._database.as_system() as connection:
            return await stats.read_stats(connection, JOBS, CALLS)

    async def show(self, request_id: UUID) -> tuple[Record, Details]:
        """
        Raises:
            NotFoundError: there is none of that id.
        """
        async with self._database.as_system() as connection:
            record = await _get(connection, request_id)
        async with self._database.as_tenant(record.tenant_id) as connection:
            return record, await records.read_details(connection, record)

    async def replay(self, request_id: UUID) -> Record:
        """Send one back now, due or not. One that is being replayed, or is answered, stays as it is.

        Raises:
            NotFoundError: there is none of that id.
            ConflictError: it was discarded.
        """
        async with self._database.as_system() as connection:
            record = await _get(connection, request_id)
            waiting = [] if record.job_id is None else await send_back(connection, [record.job_id])
            if record.job_id is None:
                await connection.execute(_WANT_CALLS, {"ids": [record.id]})
            record = await _get(connection, request_id)
        if record.state == "discarded":
            raise ConflictError("id", f"{request_id} was discarded", "send the same again as a new one")
        await _send(waiting)
        return record

    async def replay_many(self, tenant_id: str | None, *, limit: int) -> Replayed:
        """Send back what a tenant, or everybody, has parked, due or not; the oldest first, up to a bound."""
        jobs = await self._replay_jobs(tenant_id, limit)
        calls = await self._replay_calls(tenant_id, limit - jobs)
        log.info("failed_requests_replayed", jobs=jobs, calls=calls)
        return Replayed(jobs + calls, has_more=jobs + calls >= limit)

    async def discard(self, request_id: UUID, reason: str | None = None) -> Record:
        """End one without an answer; whoever waits for it is told. One that was discarded before stays so.

        Raises:
            NotFoundError: there is none of that id.
            ConflictError: it is answered, or is being replayed.
        """
        why = "discarded by hand" + (f": {make_storable(reason)[:MAX_REASON_CHARACTERS]}" if reason else "")
        async with self._database.as_system() as connection:
            record = await _get(connection, request_id)
            ended = []
            if record.job_id is None:
                await discards.discard_calls(connection, [record.id], error_type=BY_HAND, reason=why)
            else:
                ended = await discards.discard_jobs(connection, [record.job_id], error_type=BY_HAND, reason=why)
            record = await _get(connection, request_id)
        _require_discarded(record)
        log.info("failed_request_discarded", failed_request_id=str(request_id))
        await asyncio.to_thread(dispatch.tell_ended, ended)
        return record

    async def _replay_jobs(self, tenant_id: str | None, limit: int) -> int:
        count, after = 0, _BEFORE_ALL
        while batch := min(BATCH, limit - count):
            async with self._database.as_system() as connection:
                parked = await records.list_parked(connection, JOBS, tenant_id=tenant_id, after=after, limit=batch)
                waiting = await send_back(connection, tuple(parked.values()))
            await _send(waiting)
            count += len(waiting)
            if len(parked) < batch:
                break
            after = max(parked)
        return count

    async def _replay_calls(self, tenant_id: str | None, limit: int) -> int:
        count, after = 0, _BEFORE_ALL
        while batch := min(BATCH, limit - count):
            async with self._database.as_system() as connection:
                parked = await records.list_parked(connection, CALLS, tenant_id=tenant_id, after=after, limit=batch)
                count += len((await connection.execute(_WANT_CALLS, {"ids": list(parked)})).all())
            if len(parked) < batch:
                break
            after = max(parked)
        return count


async def _send(waiting: Sequence[Waiting]) -> None:
    if waiting:
        await asyncio.to_thread(dispatch.dispatch, waiting)


async def _get(connection: AsyncConnection, request_id: UUID) -> Record:
    record = await records.find(connection, request_id)
    if record is None:
        raise NotFoundError("id", f"no failed request {request_id}", "use an id that `llmyard failed list` shows")
    return record


def _require_discarded(record: Record) -> None:
    match record.state:
        case "answered":
            raise ConflictError("id", f"{record.id} is answered", "use its answer: what is done cannot be discarded")
        case "replaying":
            remedy = f"cancel job {record.job_id}, or wait" if record.job_id else "wait until that has ended"
            raise ConflictError("id", f"{record.id} is being replayed", remedy)


def parse_request_id(request_id: str, *, field: str = "id") -> UUID:
    """
    Raises:
        NotFoundError: no failed request has such an id.
    """
    try:
        return UUID(request_id)
    except ValueError:
        raise NotFoundError(field, "is not an id", "use an id that `llmyard failed list` shows") from None
