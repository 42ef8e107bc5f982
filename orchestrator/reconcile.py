"""Finds what got stuck and gives it another chance. Harmless when run twice; only late when run by nobody."""

from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs import sweeps
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.outages import begin_sweep
from orchestrator.jobs.sweeps import Expired, Waiting
from orchestrator.liveness.process_names import find_gone
from orchestrator.outcomes import EndedJob
from orchestrator.quarantine import quarantine
from shared.database import Database

log = structlog.get_logger()

NAME: Final = "reconcile"
"""Of its row in `sweeps`."""
UNDELIVERED_SECONDS: Final = 10.0
"""A job queued for less may not be on the broker yet."""
OVERTAKEN_SECONDS: Final = 60.0
"""A job is overtaken by one that was dispatched this much later and runs already."""
BATCH: Final = 1000
"""Most jobs sent again in one sweep: a flushed broker is refilled at a pace."""
SHORT_BACKLOG: Final = 10_000
"""Up to here queued jobs are counted against the messages there are."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """What a sweep found."""

    waiting: list[Waiting]
    """To be dispatched again, after the commit."""
    quarantined: list[EndedJob]
    """To be told to their pollers."""


async def reconcile(database: Database, *, lease_seconds: float, backlog: int | None) -> Stuck:
    """Take back the jobs of dead workers, and find those whose message was lost.

    `backlog` is the number of messages on the broker's queue; None if it could not be asked.
    """
    async with database.as_system() as connection:
        expired = await _expire(connection, lease_seconds)
        undelivered = [] if backlog is None else await _take_undelivered(connection, backlog)
        quarantined = [await quarantine(connection, job) for job in expired if job.state is JobState.QUARANTINED]
    for job in expired:
        log.warning("lease_expired", job_id=str(job.job_id), run=job.run, state=job.state, crashes=job.crash_count)
    if undelivered:
        log.warning("jobs_undelivered", count=len(undelivered))
    waiting = [job.waiting for job in expired if job.state is JobState.QUEUED]
    return Stuck(waiting + undelivered, quarantined)


async def free_predecessors(database: Database) -> None:
    """End the leases of this machine's workers that are gone; before the first claim of a process.

    The sweep does the rest, and counts the crash. Were one not gone after all, its next beat would renew them.
    """
    async with database.as_system() as connection:
        gone = find_gone(await sweeps.find_holders(connection))
        ended = await sweeps.end_leases(connection, gone) if gone else 0
    if ended:
        log.warning("predecessors_found_dead", workers=gone, runs=ended)


def decide_undelivered(queued: int, backlog: int) -> int:
    """How many queued jobs have lost their message: there are fewer messages than jobs."""
    return max(0, min(queued - backlog, BATCH))


async def _expire(connection: AsyncConnection, lease_seconds: float) -> list[Expired]:
    spared_seconds = await begin_sweep(connection, NAME, lease_seconds)
    if spared_seconds is None:
        return []
    return await sweeps.expire_leases(connection, spared_seconds=spared_seconds, limit=BATCH)


async def _take_undelivered(connection: AsyncConnection, backlog: int) -> list[Waiting]:
    """The queue is served in order, so the jobs dispatched first are those without a message."""
    if backlog <= SHORT_BACKLOG:
        queued = await sweeps.count_queued(connection, limit=backlog + BATCH)
        if limit := decide_undelivered(queued, backlog):
            return await sweeps.take_undelivered(
                connection, before=None, after_seconds=UNDELIVERED_SECONDS, limit=limit
            )
    # Messages that are no jobs yet may hide that others are missing, for as long as there are enough of them.
    newest = await sweeps.find_newest_in_hand(connection)
    if newest is None:
        return []
    return await sweeps.take_undelivered(connection, before=newest, after_seconds=OVERTAKEN_SECONDS, limit=BATCH)
