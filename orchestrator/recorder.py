"""Writes outcomes into the ledger, and reads them back for whoever comes later.

An outcome, its answer, its attempts and the failed request change together in one transaction, or not at all.
"""

from dataclasses import replace
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.failed_requests import store as failed_requests
from orchestrator.failed_requests.policy import decide_delay_seconds
from orchestrator.jobs import store as jobs
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim, Ending
from orchestrator.jobs.sweeps import Waiting
from orchestrator.outcomes import Failed, HandledElsewhere, Outcome, Parked, RetryLater, Succeeded
from orchestrator.results import build_view, build_waiting
from shared.database import Database, patiently

log = structlog.get_logger()


class Recorder:
    """The last step of the walk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, claim: Claim, outcome: Outcome) -> Outcome:
        """Make the outcome the job's, if this run still owns it; returns what the job then has.

        Repeated until the database takes it: an answer that was paid for is not dropped over an outage.
        """
        return await patiently(lambda: self._record(claim, outcome))

    async def join(self, connection: AsyncConnection, job_id: UUID | None, task_id: str) -> Outcome:
        """What a task gets that was delivered for a job somebody else runs, or has run."""
        if job_id is None:
            return HandledElsewhere()
        await jobs.wait_for(connection, job_id, task_id)
        job = await jobs.find(connection, job_id)
        if job is None:
            return HandledElsewhere()
        waiting_tasks = await jobs.find_waiting_tasks(connection, job_id)
        if job.state is JobState.PARKED:
            return Parked("", "", result=build_view(job), waiting_tasks=waiting_tasks)
        if job.result is None:
            return HandledElsewhere()
        ending = Succeeded if job.state is JobState.SUCCEEDED else Failed
        return ending(job.result, waiting_tasks=waiting_tasks)

    async def _record(self, claim: Claim, outcome: Outcome) -> Outcome:
        async with self._database.as_tenant(claim.tenant_id) as connection:
            if not await jobs.record(connection, claim, build_ending(outcome)):
                log.warning("run_was_stale", job_id=str(claim.job_id), run=claim.run)
                return await self.join(connection, claim.job_id, claim.task_id)
            settled = await _settle_failed_request(connection, claim, outcome)
            if isinstance(settled, Succeeded | Failed | Parked):
                settled = replace(settled, waiting_tasks=await jobs.find_waiting_tasks(connection, claim.job_id))
        log.info("run_ended", job_id=str(claim.job_id), run=claim.run, outcome=type(outcome).__name__)
        return settled


async def _settle_failed_request(connection: AsyncConnection, claim: Claim, outcome: Outcome) -> Outcome:
    if isinstance(outcome, Parked):
        request_id = await failed_requests.park(
            connection,
            claim,
            error_type=outcome.error_type,
            error_message=outcome.error_message,
            delay_seconds=decide_delay_seconds(outcome.retry_after_seconds),
        )
        return replace(outcome, result=build_waiting(claim, request_id))
    if isinstance(outcome, RetryLater):
        return replace(outcome, job=Waiting(claim.job_id, claim.tenant_id, claim.task_id))
    # A first run has no failed request to settle.
    if claim.run > 1 and isinstance(outcome, Succeeded | Failed):
        await failed_requests.end(connection, claim.job_id, answered=isinstance(outcome, Succeeded))
    return outcome


def build_ending(outcome: Outcome) -> Ending:
    """The ledger's view of an outcome."""
    match outcome:
        case Succeeded(result, attempts):
            return Ending(JobState.SUCCEEDED, "succeeded", result, attempts=attempts)
        case Failed(result, attempts):
            return Ending(JobState.FAILED, "failed", result, outcome.error_type, outcome.error_message, attempts)
        case Parked(error_type, error_message, _, attempts):
            return Ending(JobState.PARKED, "parked", None, error_type, error_message, attempts)
        case RetryLater(reason):
            return Ending(JobState.QUEUED, "handed_back", error_message=reason)
        case HandledElsewhere():
            raise AssertionError("a run that was claimed is handled here")
