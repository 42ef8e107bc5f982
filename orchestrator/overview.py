"""How the queue stands as a whole, for people who look: a few counts, read in one transaction and changing nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.liveness.registry import WorkerSeen, read_fleet
from orchestrator.liveness.verdict import find_faults

_JOBS: Final = text(
    """
    select state, count(*) as jobs, extract(epoch from now() - min(created_at))::double precision as oldest_seconds
    from jobs group by state order by state
    """
)
_PARKED: Final = text(
    """
    select error_type, count(*) as jobs, min(next_try_at) as next_try_at,
           extract(epoch from now() - min(created_at))::double precision as oldest_seconds
    from failed_requests where state = 'parked' group by error_type order by jobs desc, error_type
    """
)


@dataclass(frozen=True, slots=True)
class JobCount:
    """Jobs in one state."""

    state: str
    jobs: int
    oldest_seconds: float
    """Since the oldest of them was taken in."""


@dataclass(frozen=True, slots=True)
class ParkedCount:
    """Jobs parked because of one kind of error."""

    error_type: str
    jobs: int
    oldest_seconds: float
    """Since the first of them was parked for the first time."""
    next_try_at: datetime


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it."""

    jobs: tuple[JobCount, ...]
    parked: tuple[ParkedCount, ...]
    workers: tuple[WorkerSeen, ...]
    faults: tuple[str, ...]
    """What is wrong with the workers, each with its remedy."""


async def read_overview(connection: AsyncConnection, *, silent_seconds: float) -> Overview:
    """Of all tenants; needs the system role. A worker may be silent for so long."""
    jobs = (await connection.execute(_JOBS)).mappings()
    parked = (await connection.execute(_PARKED)).mappings()
    fleet = await read_fleet(connection)
    return Overview(
        tuple(JobCount(**row) for row in jobs),
        tuple(ParkedCount(**row) for row in parked),
        fleet.workers,
        find_faults(fleet, silent_seconds),
    )
