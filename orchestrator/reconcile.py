"""Finds what got stuck and gives it another chance. Harmless when run twice; only late when run by nobody."""

from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.beat import SWEEP_SECONDS
from orchestrator.jobs import sweeps
from orchestrator.jobs.leases import BEATS_PER_LEASE
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.sweeps import Expired, Rhythm, Waiting
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


def decide_spared_seconds(rhythm: Rhythm, lease_seconds: float) -> float | None:
    """For how long a lease must have run out to be taken away; None takes none.

    While the database was away nobody could renew a lease, so after a gap between sweeps each gets its length anew.
    Sweeps that come seldom are all gap: by the second after it ran out, a lease is taken all the same.
    """
    if rhythm.calm_seconds >= lease_seconds:
        return 0.0
    if rhythm.gap_seconds is not None and rhythm.gap_seconds >= lease_seconds:
        return rhythm.gap_seconds
    return None


def decide_undelivered(queued: int, backlog: int) -> int:
    """How many queued jobs have lost their message: there are fewer messages than jobs."""
    return max(0, min(queued - backlog, BATCH))


async def _expire(connection: AsyncConnection, lease_seconds: float) -> list[Expired]:
    # An outage shorter than a beat costs no lease: two more beats fit in it.
    longest_gap_seconds = max(2 * SWEEP_SECONDS, lease_seconds / BEATS_PER_LEASE)
    rhythm = await sweeps.begin(connection, NAME, longest_gap_seconds=longest_gap_seconds)
    spared_seconds = decide_spared_seconds(rhythm, lease_seconds)
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
