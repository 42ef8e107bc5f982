"""The walk of one job, as named steps: claim, choose the agent, ask the pool, record the outcome.

Every way a run is expected to end is an `Outcome`. What is not expected is raised: the run then never ends, its lease
runs out, and the job's crash count decides whether another worker may have it.
"""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import Any
from uuid import UUID

import structlog

from llm_pool.call import CompletionPool
from llm_pool.types import CompletionRequest, CompletionResponse
from orchestrator.agents.catalog import AgentProfile
from orchestrator.agents.directory import AgentDirectory
from orchestrator.agents.prompt_builder import build_messages, build_system_prompt
from orchestrator.agents.prompt_request import build_prompt_request
from orchestrator.isolation.suspect import Suspect, SuspectDiedError, SuspectPool, is_suspect
from orchestrator.jobs.deliveries import Delivery, Ledger
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.jobs.store import Claim
from orchestrator.messages import Message
from orchestrator.outcomes import Crashed, Failed, Outcome, Parked, RetryLater, Succeeded
from orchestrator.recorder import Recorder
from orchestrator.results import build_answer, build_failure
from orchestrator.workload import NoSlotError, Place, Workload
from shared.database import Database, patiently
from shared.errors import InputError, LLMBudgetExceededError, LLMError, RunCrashedError

log = structlog.get_logger()


class Runner:
    """Runs jobs for one worker process; many at once."""

    def __init__(
        self,
        database: Database,
        pool: CompletionPool,
        leases: LeaseKeeper,
        recorder: Recorder,
        *,
        ledger: Ledger,
        suspects: SuspectPool,
        workload: Workload,
    ) -> None:
        self._database = database
        self._agents = AgentDirectory(database)
        self._pool = pool
        self._leases = leases
        self._ledger = ledger
        self._recorder = recorder
        self._suspects = suspects
        self._workload = workload
        self._asking: dict[tuple[UUID, int], asyncio.Task[Any]] = {}
        self._is_stopping = False

    async def handle(self, delivery: Delivery) -> Outcome:
        """Take a delivery to its outcome. A delivery of a job that is not waiting for a run changes nothing.

        Raises:
            NotFoundError: the message names a tenant that does not exist; nothing was stored.
            RunCrashedError: a surprise after the job was claimed.
        """
        with self._workload.enter_single() as place:
            claim = await delivery.claim(self._ledger)
            if claim is None:
                return await patiently(lambda: self._join(delivery))
            return await self._carry_out(claim, place)

    async def handle_slice(self, tenant_id: str, job_ids: Sequence[UUID]) -> list[Outcome]:
        """Run many jobs of a tenant side by side; one that waits for no run, or whose run crashed, has no outcome."""
        await self._workload.slice_turn()
        with self._workload.enter_slice(len(job_ids)) as places:
            claims = await self._ledger.claim_slice(tenant_id, job_ids)
            handling = [self._carry_out(*each) for each in zip(claims, places, strict=False)]
            handled = await asyncio.gather(*handling, return_exceptions=True)
        return [outcome for outcome in handled if not isinstance(outcome, BaseException)]

    def hand_back_all(self) -> int:
        """Interrupt every job that waits for a model, now and from now on; what is being recorded goes on.

        Returns how many it were.
        """
        self._is_stopping = True
        return self.interrupt({job_id for job_id, _ in self._asking})

    def interrupt(self, job_ids: Collection[UUID]) -> int:
        """Stop asking for those of the jobs that are in hand, as for cancelled ones; returns how many they were.

        Each is handed back, which changes nothing where the ledger has it as ended.
        """
        tasks = [task for (job_id, _), task in self._asking.items() if job_id in job_ids]
        for task in tasks:
            task.cancel()
        return len(tasks)

    async def _carry_out(self, claim: Claim, place: Place) -> Outcome:
        # For as long as the asyncio task lives, and each job has its own.
        structlog.contextvars.bind_contextvars(job_id=str(claim.job_id))
        with self._leases.hold(claim):
            try:
                outcome = await self._run(claim, place)
                place.make_room(is_answered=not isinstance(outcome, RetryLater))
                return await self._recorder.record(claim, outcome)
            except Exception as surprise:
                log.exception("run_crashed", run=claim.run)
                await self._recorder.note(claim, surprise)
                raise RunCrashedError(f"{type(surprise).__name__} in run {claim.run}") from surprise

    async def _run(self, claim: Claim, place: Place) -> Outcome:
        """Build the request and ask the pool; what they raise decides what becomes of the job."""
        try:
            response = await self._ask_interruptibly(claim, place)
        except InputError as error:
            return Failed(build_failure(claim, error))
        except LLMError as error:
            return decide_outcome(claim, error)
        except NoSlotError:
            return RetryLater("claimed ahead, and no slot became free")
        except SuspectDiedError as death:
            return Crashed(str(death))
        except asyncio.CancelledError:
            return RetryLater("interrupted: cancelled, or the worker is stopping")
        return Succeeded(build_answer(claim, response), response.attempts)

    async def _ask_interruptibly(self, claim: Claim, place: Place) -> CompletionResponse:
        task = asyncio.current_task()
        assert task is not None, "jobs run inside the worker's event loop"
        # By run too: a worker that was suspended past its lease may have claimed the same job again.
        key = (claim.job_id, claim.run)
        self._asking[key] = task
        if self._is_stopping:
            task.cancel()
        try:
            request = await self._build_request(claim.message)
            async with place.slot():
                return await self._ask(claim, request)
        finally:
            del self._asking[key]

    def _ask(self, claim: Claim, request: CompletionRequest) -> Awaitable[CompletionResponse]:
        """Among all others, unless the job may kill them."""
        is_foreign = self._pool.runs_foreign_code(request.model)
        is_alone = is_suspect(claim.crash_count, runs_foreign_code=is_foreign)
        if is_alone or (is_foreign and self._suspects.distrusts(request.model)):
            return self._suspects.complete(Suspect(claim.job_id, claim.crash_count), request)
        return self._pool.complete(request)

    async def _join(self, delivery: Delivery) -> Outcome:
        """Another run has the job, or had it: let this task have the same answer, now or later."""
        async with self._database.as_tenant(delivery.tenant_id) as connection:
            return await self._recorder.join(connection, await delivery.find_job_id(connection), delivery.task_id)

    async def _build_request(self, message: Message) -> CompletionRequest:
        """A message that carries its own prompt needs no agent."""
        if message.prompt is not None:
            return build_prompt_request(message)
        return build_request(await self._agents.get(message.tenant_id, message.agent_id), message)


def build_request(agent: AgentProfile, message: Message) -> CompletionRequest:
    """What the pool is asked: the message's model group if it names one, else the agent's."""
    messages = build_messages(build_system_prompt(agent), message.content, message.context.history)
    return CompletionRequest(
        model=message.model or agent.model_preference, messages=messages, tenant_id=message.tenant_id
    )


def decide_outcome(claim: Claim, error: LLMError) -> Outcome:
    """Park what time may mend; fail what it cannot, such as a purse that is spent."""
    is_spent = isinstance(error, LLMBudgetExceededError) and error.resets_at is None
    if error.parks and not is_spent:
        return Parked(type(error).__name__, str(error), error.retry_after_seconds, error.attempts)
    return Failed(build_failure(claim, error), error.attempts)
