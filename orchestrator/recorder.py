"""Writes outcomes into the ledger, and reads them back for whoever comes later.

An outcome, its answer, its attempts and the failed request change together in one transaction, or not at all; answers
and failures share it with those of other jobs.
"""

from collections.abc import Awaitable
from dataclasses import replace
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.failed_requests import store as failed_requests
from orchestrator.group_commit import GroupCommit
from orchestrator.jobs import crashes, endings
from orchestrator.jobs import store as jobs
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim
from orchestrator.jobs.sweeps import Waiting
from orchestrator.outcomes import Cancelled, Crashed, Failed, HandledElsewhere, Outcome, Parked, RetryLater, Succeeded
from orchestrator.quarantine import quarantine
from orchestrator.results import build_parked, build_view
from shared.database import DATABASE_ERRORS, Database, describe_fault, patiently
from shared.text import make_storable

log = structlog.get_logger()

_OUTCOMES: Final[dict[JobState, type[Succeeded] | type[Cancelled]]] = {
    JobState.SUCCEEDED: Succeeded,
    JobState.CANCELLED: Cancelled,
}
"""Every other final state is a failure to whoever waits."""


class Recorder:
    """The last step of the walk."""

    def __init__(self, database: Database, ledger: GroupCommit) -> None:
        self._database = database
        self._ledger = ledger
        # Made anew for each run, a logger costs more than all else here, even one that has nothing to say.
        self._log = log.bind()

    def record(self, claim: Claim, outcome: Outcome) -> Awaitable[Outcome]:
        """Make the outcome the job's, if this run still owns it; returns what the job then has.

        Repeated until the database takes it: an answer that was paid for is not dropped over an outage.
        """
        if isinstance(outcome, (Succeeded, Failed)):
            return self._record_final(claim, outcome)
        if isinstance(outcome, Crashed):
            return patiently(lambda: self._record_crash(claim, outcome.last_words))
        return patiently(lambda: self._record(claim, outcome))

    async def note(self, claim: Claim, surprise: Exception) -> None:
        """Keep what was seen of a run that crashed in the midst of others; its lease says when it is over."""
        try:
            async with self._database.as_tenant(claim.tenant_id) as connection:
                await crashes.note(connection, claim, type(surprise).__name__, make_storable(str(surprise)))
        except DATABASE_ERRORS as error:
            log.warning("surprise_not_noted", error=describe_fault(error))

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
        outcome = _OUTCOMES.get(job.state, Failed)
        return outcome(job.result, waiting_tasks=waiting_tasks)

    async def _record_final(self, claim: Claim, outcome: Succeeded | Failed) -> Outcome:
        recorded = await self._ledger.end(claim, build_ending(outcome))
        if not recorded.counts:
            return await patiently(lambda: self._join_after(claim))
        self._log.debug("run_ended", job_id=str(claim.job_id), run=claim.run, outcome=type(outcome).__name__)
        return replace(outcome, waiting_tasks=recorded.waiting_tasks) if recorded.waiting_tasks else outcome

    async def _record(self, claim: Claim, outcome: Outcome) -> Outcome:
        async with self._database.as_tenant(claim.tenant_id) as connection:
            counts = await endings.record(connection, claim, build_ending(outcome))
            settled = await _settle(connection, claim, outcome) if counts else None
        if settled is None:
            return await self._join_after(claim)
        log.info("run_put_off", job_id=str(claim.job_id), run=claim.run, outcome=type(outcome).__name__)
        return settled

    async def _join_after(self, claim: Claim) -> Outcome:
        """Another run has the job by now, or nobody: what this one paid is kept, its answer is not."""
        log.warning("run_was_stale", job_id=str(claim.job_id), run=claim.run)
        async with self._database.as_tenant(claim.tenant_id) as connection:
            return await self.join(connection, claim.job_id, claim.task_id)

    async def _record_crash(self, claim: Claim, last_words: str) -> Outcome:
        async with self._database.as_tenant(claim.tenant_id) as connection:
            job = await crashes.record(connection, claim, last_words)
            if job is None:
                return await self.join(connection, claim.job_id, claim.task_id)
            ended = await quarantine(connection, job) if job.state is JobState.QUARANTINED else None
        log.warning("suspect_died", run=job.run, crashes=job.crash_count, state=job.state, last_words=last_words)
        return Failed(ended.result, waiting_tasks=ended.task_ids) if ended else RetryLater(last_words, job.waiting)


async def _settle(connection: AsyncConnection, claim: Claim, outcome: Outcome) -> Outcome:
    """What is written, or known, of a job that goes on."""
    if isinstance(outcome, RetryLater):
        return replace(outcome, job=Waiting(claim.job_id, claim.tenant_id, claim.task_id))
    assert isinstance(outcome, Parked), "whatever else a run ends with ends its job too"
    request_id = await failed_requests.park(
        connection,
        claim,
        error_type=outcome.error_type,
        error_message=outcome.error_message,
        retry_after_seconds=outcome.retry_after_seconds,
    )
    waiting_tasks = await jobs.find_waiting_tasks(connection, claim.job_id)
    return replace(outcome, result=build_parked(claim, request_id), waiting_tasks=waiting_tasks)


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
        case HandledElsewhere() | Cancelled() | Crashed():
            raise AssertionError("a run that was claimed ends here, and nobody cancels a job by running it")
