"""The ledger at hand for tests: its queries on one job, and ways for a run to end."""

from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from orchestrator.jobs import store
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim, ClaimTerms, Ending, JobRecord
from orchestrator.messages import Message
from shared.attempts import Usage
from shared.database import Database
from tests.builders import build_attempt, build_message

ANSWERED = Ending(JobState.SUCCEEDED, "succeeded", {"content": "fine"}, attempts=(build_attempt(usage=Usage(3, 2)),))
FAILED = Ending(JobState.FAILED, "failed", {"content": "sorry"}, "T", "m")
PARKED = Ending(JobState.PARKED, "parked", None, "T", "m", (build_attempt(error_type="T"),))
HANDED_BACK = Ending(JobState.QUEUED, "handed_back", error_message="stopping")


class Jobs:
    """The store, each call in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, message: Message, task_id: str = "task-1") -> UUID | None:
        job_id = uuid7()
        async with self._database.as_tenant(message.tenant_id) as connection:
            return job_id if await store.add(connection, job_id, message, task_id) else None

    async def add_and_claim(self, message: Message, task_id: str = "task-1") -> Claim | None:
        async with self._database.as_tenant(message.tenant_id) as connection:
            return await store.add_and_claim(connection, uuid7(), message, task_id, ClaimTerms("w-1", 30))

    async def claim(self, job_id: UUID) -> Claim | None:
        async with self._database.as_tenant("default") as connection:
            return await store.claim(connection, job_id, ClaimTerms("w-2", 30))

    async def record(self, claim: Claim, ending: Ending) -> bool:
        async with self._database.as_tenant("default") as connection:
            return await store.record(connection, claim, ending)

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


async def count(superuser: asyncpg.Connection, table: str) -> int:
    return int(await superuser.fetchval(f"select count(*) from {table}"))
