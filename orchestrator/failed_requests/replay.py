"""Sends parked jobs back: a probe first, then a paced drain. Harmless when run twice."""

import structlog

from orchestrator.failed_requests import store
from orchestrator.failed_requests.policy import decide_release
from orchestrator.jobs.sweeps import Waiting
from shared.database import Database

log = structlog.get_logger()


async def release_due(database: Database) -> list[Waiting]:
    """Queue as many parked jobs as the pulse of the drain allows; the caller dispatches them after this commit."""
    async with database.as_system() as connection:
        limit = decide_release(await store.read_pulse(connection))
        released = await store.release(connection, limit=limit) if limit else []
    if released:
        log.info("parked_jobs_released", count=len(released))
    return released
