"""Finds what got stuck and gives it another chance. Harmless when run twice; only late when run by nobody."""

from dataclasses import dataclass
from typing import Any, Final

import structlog

from orchestrator.jobs import sweeps
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.sweeps import Expired, Waiting
from orchestrator.results import build_quarantine
from shared.database import Database

log = structlog.get_logger()

UNDELIVERED_SECONDS: Final = 60.0
"""A job queued for this long without a claim may have lost its message."""
BATCH: Final = 200
"""Most jobs sent again in one sweep: a flushed broker is refilled at a pace."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """What a sweep found."""

    waiting: list[Waiting]
    """To be dispatched again, after the commit."""
    quarantined: list[tuple[Expired, dict[str, Any]]]
    """To be told to their pollers, each with its result."""


async def reconcile(database: Database) -> Stuck:
    """Take back the jobs of dead workers, and find those whose message was lost."""
    async with database.as_system() as connection:
        expired = await sweeps.expire_leases(connection, limit=BATCH)
        undelivered = await sweeps.take_undelivered(connection, after_seconds=UNDELIVERED_SECONDS, limit=BATCH)
        quarantined = [(job, build_quarantine(job)) for job in expired if job.state is JobState.QUARANTINED]
        for job, result in quarantined:
            await sweeps.add_result(connection, job, result)
    for job in expired:
        log.warning("lease_expired", job_id=str(job.job_id), run=job.run, state=job.state, crashes=job.crash_count)
    if undelivered:
        log.warning("jobs_undelivered", count=len(undelivered))
    waiting = [job.waiting for job in expired if job.state is JobState.QUEUED]
    return Stuck(waiting + undelivered, quarantined)
