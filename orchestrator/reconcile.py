"""Finds what got stuck and gives it another chance. Harmless when run twice; only late when run by nobody."""

from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.failed_requests import store as failed_requests
from orchestrator.jobs import sweeps
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import find_waiting_tasks
from orchestrator.jobs.sweeps import Expired, Waiting
from orchestrator.results import build_quarantine
from shared.database import Database

log = structlog.get_logger()

UNDELIVERED_SECONDS: Final = 60.0
"""A job queued for this long without a claim may have lost its message."""
BATCH: Final = 200
"""Most jobs sent again in one sweep: a flushed broker is refilled at a pace."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A job that no worker gets again."""

    result: dict[str, Any]
    """What the poller gets."""
    task_ids: tuple[str, ...]
    """Every Celery task that waits for it."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """What a sweep found."""

    waiting: list[Waiting]
    """To be dispatched again, after the commit."""
    quarantined: list[Quarantined]
    """To be told to their pollers."""


async def reconcile(database: Database) -> Stuck:
    """Take back the jobs of dead workers, and find those whose message was lost."""
    async with database.as_system() as connection:
        expired = await sweeps.expire_leases(connection, limit=BATCH)
        undelivered = await sweeps.take_undelivered(connection, after_seconds=UNDELIVERED_SECONDS, limit=BATCH)
        quarantined = [await _quarantine(connection, job) for job in expired if job.state is JobState.QUARANTINED]
    for job in expired:
        log.warning("lease_expired", job_id=str(job.job_id), run=job.run, state=job.state, crashes=job.crash_count)
    if undelivered:
        log.warning("jobs_undelivered", count=len(undelivered))
    waiting = [job.waiting for job in expired if job.state is JobState.QUEUED]
    return Stuck(waiting + undelivered, quarantined)


async def _quarantine(connection: AsyncConnection, job: Expired) -> Quarantined:
    result = build_quarantine(job)
    await sweeps.add_result(connection, job, result)
    await failed_requests.end(connection, job.job_id, answered=False)
    return Quarantined(result, (job.task_id, *await find_waiting_tasks(connection, job.job_id)))
