"""What a task brings to the runner: a message that may or may not be a job yet, or a job that has its row."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from orchestrator.jobs import store
from orchestrator.jobs.store import Claim, ClaimTerms
from orchestrator.messages import Message


class Delivery(Protocol):
    """Both kinds, as the runner sees them."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def task_id(self) -> str:
        """The Celery task that brought it, and that waits for the answer."""

    async def find_job_id(self, connection: AsyncConnection) -> UUID | None: ...

    async def claim(self, connection: AsyncConnection, terms: ClaimTerms) -> Claim | None:
        """Start the job's next run; None when it is not waiting for one."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """From a producer that speaks Celery. The row is made here unless the tenant has sent this message before."""

    message: Message
    task_id: str

    @property
    def tenant_id(self) -> str:
        return self.message.tenant_id

    async def find_job_id(self, connection: AsyncConnection) -> UUID | None:
        return await store.find_id(connection, self.tenant_id, self.message.id)

    async def claim(self, connection: AsyncConnection, terms: ClaimTerms) -> Claim | None:
        """
        Raises:
            NotFoundError: no such tenant.
        """
        new = await store.add_and_claim(connection, uuid7(), self.message, self.task_id, terms)
        if new is not None:
            return new
        job_id = await self.find_job_id(connection)
        return None if job_id is None else await store.claim(connection, job_id, terms)


@dataclass(frozen=True, slots=True)
class KnownJob:
    """Submitted over HTTP, replayed, handed back, or found undelivered."""

    tenant_id: str
    job_id: UUID
    task_id: str

    async def find_job_id(self, _: AsyncConnection) -> UUID | None:
        return self.job_id

    async def claim(self, connection: AsyncConnection, terms: ClaimTerms) -> Claim | None:
        return await store.claim(connection, self.job_id, terms)
