"""The ledger at hand for tests: its queries on one job, and ways for a run to end."""

from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from orchestrator.jobs import claims, endings, store
from orchestrator.jobs.claims import ClaimedJob, NewJob, WaitingJob
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim, JobRecord
from orchestrator.messages import Message
from shared.attempts import Usage
from shared.database import Database
from tests.builders import build_attempt, build_message

ANSWERED = Ending(JobState.SUCCEEDED, "succeeded", {"content": "fine"}, attempts=(build_attempt(usage=Usage(3, 2)),))
FAILED = Ending(JobState.FAILED, "failed", {"content": "sorry"}, "T", "m")
PARKED = Ending(JobState.PARKED, "parked", None, "T", "m", (build_attempt(error_type="T"),))
HANDED_BACK = Ending(JobState.QUEUED, "handed_back", error_message="stopping")


OVERTAKE = "with gone as (delete from leases) update jobs set state = 'queued' where state = 'running'"
"""What a sweep does to runs it takes for dead, less the crash."""


class Jobs:
    """The store, each call in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, message: Message, task_id: str = "task-1") -> UUID | None:
        job_id = uuid7()
        async with self._database.as_tenant(message.tenant_id) as connection:
            return job_id if await store.add(connection, job_id, message, task_id) else None

    async def add_and_claim(self, message: Message, task_id: str = "task-1") -> Claim | None:
        async with self._database.as_system() as connection:
            return await claim_new(connection, message, task_id)

    async def claim(self, job_id: UUID, claim_id: UUID | None = None, task_id: str = "task-1") -> Claim | None:
        waiting = WaitingJob(job_id, task_id, claim_id or uuid7())
        async with self._database.as_system() as connection:
            claimed = await claims.claim_known(connection, [waiting], "w-2", 30)
        return await self.complete(claimed[waiting.claim_id]) if claimed else None

    async def complete(self, claimed: ClaimedJob) -> Claim:
        """With what was asked, as its tenant reads it."""
        async with self._database.as_tenant(claimed.tenant_id) as connection:
            messages = await claims.read_messages(connection, [claimed.job_id])
        return complete(claimed, messages[claimed.job_id])

    async def record(self, claim: Claim, ending: Ending) -> bool:
        async with self._database.as_tenant("default") as connection:
            return await endings.record(connection, claim, ending)

    async def cancel(self, job_id: UUID) -> bool:
        async with self._database.as_tenant("default") as connection:
            return bool(await endings.cancel(connection, job_id, {"error": {"type": "Cancelled", "message": "m"}}))

    async def find(self, job_id: UUID) -> JobRecord:
        async with self._database.as_tenant("default") as connection:
            job = await store.find(connection, job_id)
        assert job
        return job

    async def start(self) -> Claim:
        claim = await self.add_and_claim(build_message())
        assert claim
        return claim

    async def wait_for(self, job_id: UUID, task_id: str) -> None:
        async with self._database.as_tenant("default") as connection:
            await store.wait_for(connection, job_id, task_id)

    async def find_waiting_tasks(self, job_id: UUID) -> tuple[str, ...]:
        async with self._database.as_tenant("default") as connection:
            return await store.find_waiting_tasks(connection, job_id)


async def claim_new(connection: AsyncConnection, message: Message, task_id: str = "task-1") -> Claim | None:
    """One message, and its own text where the tenant had sent it before."""
    new = NewJob(uuid7(), message, task_id, uuid7())
    claimed = (await claims.claim_new(connection, [new], "w-1", 30)).claimed.get(new.job_id)
    return claimed and complete(claimed, message)


def complete(claimed: ClaimedJob, message: Message) -> Claim:
    return Claim(claimed.job_id, claimed.tenant_id, claimed.task_id, claimed.run, message, claimed.crash_count)


async def count(superuser: asyncpg.Connection, table: str) -> int:
    return int(await superuser.fetchval(f"select count(*) from {table}"))
