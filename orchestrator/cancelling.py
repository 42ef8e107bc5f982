"""Ends a job before it has an answer: waiting, parked or running, on whatever machine.

The ledger decides, against an answer at the same moment: one of the two is written. Only then are the workers told, and
the one that runs the job closes its socket to the provider; the heartbeat tells one that did not hear.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from orchestrator import dispatch
from orchestrator.failed_requests import store as failed_requests
from orchestrator.jobs import endings, store
from orchestrator.jobs.deliveries import NewMessage
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import JobRecord
from orchestrator.results import build_cancellation
from shared.database import Database, patiently

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Ended:
    """A job that was cancelled, and every Celery task that waits for it."""

    job_id: UUID
    task_ids: tuple[str, ...]


class Canceller:
    """Every door's way to cancel, Celery's own included."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._untold: list[_Ended] = []
        self._telling = asyncio.Lock()

    async def cancel(self, tenant_id: str, job_id: UUID) -> JobRecord:
        """End a job, unless it has ended already; returns how it then stands.

        Raises:
            NotFoundError: the tenant has no such job.
        """
        async with self._database.as_tenant(tenant_id) as connection:
            job = await store.get(connection, job_id)
            ended = None if job.state.is_final else await self._end(connection, job)
            if ended is None:
                return await store.get(connection, job_id)
            waiting_tasks = await store.find_waiting_tasks(connection, job_id)
        log.info("job_cancelled", job_id=str(job_id), state=job.state.value)
        await self._tell(_Ended(job_id, (job.task_id, *waiting_tasks)))
        return ended

    async def cancel_tasks(self, task_ids: Sequence[str]) -> None:
        """End the open jobs of Celery tasks that were revoked; each worker is told of it, and the first one does it.

        Repeated until the database takes it: nobody would say it again.
        """
        await patiently(lambda: self._cancel_tasks(task_ids))

    async def cancel_message(self, delivery: NewMessage) -> None:
        """End the job of a message whose task was revoked before it was a job: the ledger then has it, as cancelled.

        Raises:
            NotFoundError: no such tenant.
        """
        await patiently(lambda: self._take_in(delivery))
        # Where it is a job already, under another task, that one still waits for it.
        await self.cancel_tasks([delivery.task_id])

    async def _cancel_tasks(self, task_ids: Sequence[str]) -> None:
        async with self._database.as_system() as connection:
            found = await store.find_open(connection, task_ids)
        for job_id, tenant_id in found:
            await self.cancel(tenant_id, job_id)

    async def _take_in(self, delivery: NewMessage) -> None:
        async with self._database.as_tenant(delivery.tenant_id) as connection:
            await store.add(connection, uuid7(), delivery.message, delivery.task_id)

    async def _end(self, connection: AsyncConnection, job: JobRecord) -> JobRecord | None:
        result = build_cancellation(job)
        finished_at = await endings.cancel(connection, job.job_id, result)
        if finished_at is None:
            return None
        await failed_requests.end(connection, job.job_id, answered=False)
        return replace(job, state=JobState.CANCELLED, result=result, finished_at=finished_at, next_try_at=None)

    async def _tell(self, ended: _Ended) -> None:
        """Workers first, then pollers. What comes while others are being told goes out together, after them."""
        self._untold.append(ended)
        async with self._telling:
            told, self._untold = self._untold, []
            if told:
                await asyncio.to_thread(_tell_all, told)


def _tell_all(ended: Sequence[_Ended]) -> None:
    dispatch.broadcast_cancel([each.job_id for each in ended])
    dispatch.tell_revoked([task_id for each in ended for task_id in each.task_ids], "cancelled")
