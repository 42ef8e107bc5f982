"""The door for callers with an answer to wait for: takes a message in, and says where its job stands.

Everything that can be told to the caller at once is told here, before a row exists. The other door is the Celery task
itself; both end in the same ledger.
"""

import asyncio
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from llm_pool.catalog import Catalog
from orchestrator import dispatch
from orchestrator.agents import catalog
from orchestrator.cancelling import Canceller
from orchestrator.jobs import store
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import JobRecord
from orchestrator.jobs.sweeps import Waiting
from orchestrator.messages import Message
from shared.database import Database

FIRST_LOOK_SECONDS: Final = 0.02
LONGEST_LOOK_SECONDS: Final = 0.5


class FrontDoor:
    """What the API and the command line do with jobs."""

    def __init__(self, database: Database, models: Catalog) -> None:
        self._database = database
        self._models = models
        self._canceller = Canceller(database)

    async def submit(self, message: Message) -> JobRecord:
        """Take a message in, commit, then wake a worker. The same message twice is the same job.

        Raises:
            NotFoundError: no such tenant, agent or model group.
            InputError: the agent is switched off.
        """
        async with self._database.as_tenant(message.tenant_id) as connection:
            agent = await catalog.get_agent(connection, message.tenant_id, message.agent_id)
            self._models.get_group(message.model or agent.model_preference)
            job_id = uuid7()
            is_new = await store.add(connection, job_id, message, task_id=str(job_id))
            known_id = job_id if is_new else await store.find_id(connection, message.tenant_id, message.id)
            job = known_id and await store.find(connection, known_id)
        assert job, "a message whose row is committed has its job"
        if is_new:
            await asyncio.to_thread(dispatch.dispatch, [Waiting(job.job_id, job.tenant_id, job.task_id)])
        return job

    async def cancel(self, job_id: UUID) -> JobRecord:
        """End a job wherever it is, unless it has ended already; its final state says which of the two it was.

        Raises:
            NotFoundError: no such job.
        """
        return await self._canceller.cancel(await self._get_tenant(job_id), job_id)

    async def get(self, job_id: UUID) -> JobRecord:
        """Where a job stands.

        Raises:
            NotFoundError: no such job.
        """
        async with self._database.as_tenant(await self._get_tenant(job_id)) as connection:
            return await store.get(connection, job_id)

    async def wait(self, job_id: UUID, seconds: float) -> JobRecord:
        """The job as soon as it has news for a user (an answer, a failure, or that it was parked), or after `seconds`.

        Raises:
            NotFoundError: no such job.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        job = await self.get(job_id)
        was_parked = job.state is JobState.PARKED
        look_seconds = FIRST_LOOK_SECONDS
        while not _has_news(job, was_parked) and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(look_seconds, left))
            look_seconds = min(look_seconds * 1.5, LONGEST_LOOK_SECONDS)
            job = await self.get(job_id)
        return job

    async def _get_tenant(self, job_id: UUID) -> str:
        async with self._database.as_system() as connection:
            return await store.get_tenant(connection, job_id)


def _has_news(job: JobRecord, was_parked: bool) -> bool:
    return job.state.is_final or (job.state is JobState.PARKED and not was_parked)
