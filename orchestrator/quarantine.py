"""What is done, besides, when a job is quarantined: its pollers get the evidence, and nothing waits for it any more."""

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.failed_requests import store as failed_requests
from orchestrator.jobs.crashes import find_crashed_runs
from orchestrator.jobs.endings import NewResult, add_results
from orchestrator.jobs.store import find_waiting_tasks
from orchestrator.jobs.sweeps import Expired
from orchestrator.outcomes import EndedJob
from orchestrator.results import build_quarantine


async def quarantine(connection: AsyncConnection, job: Expired) -> EndedJob:
    """In the transaction that quarantined it."""
    result = build_quarantine(job, await find_crashed_runs(connection, job.job_id))
    await add_results(connection, [NewResult(job.job_id, job.tenant_id, job.run, result)])
    await failed_requests.end(connection, job.job_id, answered=False)
    return EndedJob(result, (job.task_id, *await find_waiting_tasks(connection, job.job_id)))
