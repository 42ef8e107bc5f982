"""What a task brings to the runner: a message that may or may not be a job yet, or a job that has its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs import store
from orchestrator.jobs.store import Claim
from orchestrator.messages import Message


class Ledger(Protocol):
    """Where claims are made; see `orchestrator.group_commit`."""

    async def claim_new(self, message: Message, task_id: str) -> Claim | None:
        """Take a message in and claim its first run, or the next one of the job that it became before.

        None when that job waits for no run.

        Raises:
            NotFoundError: no such tenant; nothing was stored.
        """

    async def claim(self, job_id: UUID, task_id: str) -> Claim | None:
        """Start the next run of a queued job; None when it is not queued."""

    async def claim_slice(self, tenant_id: str, job_ids: Sequence[UUID]) -> list[Claim]:
        """Likewise many jobs of one tenant, each with a task of its own name; absent are those that are not queued."""


class Delivery(Protocol):
    """Both kinds, as the runner sees them."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def task_id(self) -> str:
        """The Celery task that brought it."""

    async def find_job_id(self, connection: AsyncConnection) -> UUID | None: ...

    async def claim(self, ledger: Ledger) -> Claim | None:
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

    async def claim(self, ledger: Ledger) -> Claim | None:
        """
        Raises:
            NotFoundError: no such tenant.
        """
        return await ledger.claim_new(self.message, self.task_id)


@dataclass(frozen=True, slots=True)
class KnownJob:
    """Submitted over HTTP, replayed, handed back, or found undelivered."""

    tenant_id: str
    job_id: UUID
    task_id: str

    async def find_job_id(self, _: AsyncConnection) -> UUID | None:
        return self.job_id

    async def claim(self, ledger: Ledger) -> Claim | None:
        return await ledger.claim(self.job_id, self.task_id)
