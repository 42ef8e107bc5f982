"""The walk of one job, as named steps: claim, choose the agent, ask the pool, record the outcome.

Every way a run is expected to end is an `Outcome`. What is not expected is raised: the run then never ends, its lease
runs out, and the job's crash count decides whether another worker may have it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from llm_pool.call import CompletionPool
from llm_pool.types import CompletionRequest
from orchestrator.agents import catalog
from orchestrator.agents.prompt_builder import build_messages, build_system_prompt
from orchestrator.jobs.deliveries import Delivery
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.jobs.store import Claim, ClaimTerms
from orchestrator.messages import Message
from orchestrator.outcomes import Failed, Outcome, Parked, RetryLater, Succeeded
from orchestrator.recorder import Recorder
from orchestrator.results import build_answer, build_failure
from shared.database import Database, patiently
from shared.errors import InputError, LLMError, RunCrashedError

log = structlog.get_logger()


class Runner:
    """Runs jobs for one worker process; many at once."""

    def __init__(
        self, database: Database, pool: CompletionPool, leases: LeaseKeeper, recorder: Recorder, *, worker: str
    ) -> None:
        self._database = database
        self._pool = pool
        self._leases = leases
        self._recorder = recorder
        self._worker = worker
        self._asking: set[asyncio.Task[Any]] = set()
        self._is_stopping = False

    async def handle(self, delivery: Delivery) -> Outcome:
        """Take a delivery to its outcome. A delivery of a job that is not waiting for a run changes nothing.

        Raises:
            NotFoundError: the message names a tenant that does not exist; nothing was stored.
            RunCrashedError: a surprise after the job was claimed.
        """
        claim = await patiently(lambda: self._claim(delivery))
        if claim is None:
            return await patiently(lambda: self._join(delivery))
        with self._leases.hold(claim), structlog.contextvars.bound_contextvars(job_id=str(claim.job_id)):
            try:
                outcome = await self._run(claim)
                return await self._recorder.record(claim, outcome)
            except Exception as surprise:
                log.exception("run_crashed", run=claim.run)
                raise RunCrashedError(f"{type(surprise).__name__} in run {claim.run}") from surprise

    def hand_back_all(self) -> int:
        """Interrupt every job that waits for a model, now and from now on; what is being recorded goes on.

        Returns how many it were.
        """
        self._is_stopping = True
        for task in self._asking:
            task.cancel()
        return len(self._asking)

    async def _run(self, claim: Claim) -> Outcome:
        """Choose the agent and ask the pool; what they raise decides what becomes of the job."""
        try:
            with self._interruptible():
                agent = await patiently(lambda: self._choose_agent(claim))
                response = await self._pool.complete(build_request(agent, claim.message))
        except InputError as error:
            return Failed(build_failure(claim, error))
        except LLMError as error:
            return decide_outcome(claim, error)
        except asyncio.CancelledError:
            return RetryLater("the worker is stopping")
        return Succeeded(build_answer(claim, response), response.attempts)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None, "jobs run inside the worker's event loop"
        self._asking.add(task)
        if self._is_stopping:
            task.cancel()
        try:
            yield
        finally:
            self._asking.discard(task)

    async def _claim(self, delivery: Delivery) -> Claim | None:
        async with self._database.as_tenant(delivery.tenant_id) as connection:
            return await delivery.claim(connection, ClaimTerms(self._worker, self._leases.lease_seconds))

    async def _join(self, delivery: Delivery) -> Outcome:
        """Another run has the job, or had it: let this task have the same answer, now or later."""
        async with self._database.as_tenant(delivery.tenant_id) as connection:
            return await self._recorder.join(connection, await delivery.find_job_id(connection), delivery.task_id)

    async def _choose_agent(self, claim: Claim) -> catalog.AgentProfile:
        async with self._database.as_tenant(claim.tenant_id) as connection:
            return await catalog.get_agent(connection, claim.tenant_id, claim.message.agent_id)


def build_request(agent: catalog.AgentProfile, message: Message) -> CompletionRequest:
    """What the pool is asked: the message's model group if it names one, else the agent's."""
    messages = build_messages(build_system_prompt(agent), message.content, message.context.history)
    return CompletionRequest(
        model=message.model or agent.model_preference, messages=messages, tenant_id=message.tenant_id
    )


def decide_outcome(claim: Claim, error: LLMError) -> Outcome:
    """Park what time may mend; fail what it cannot."""
    if error.parks:
        return Parked(type(error).__name__, str(error), error.retry_after_seconds, error.attempts)
    return Failed(build_failure(claim, error), error.attempts)
