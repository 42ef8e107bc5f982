"""Is this process alive, can it do its work, and is there somebody to do the work it takes in."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from orchestrator.dispatch import is_broker_reachable
from orchestrator.liveness.registry import Fleet, read_fleet
from orchestrator.liveness.verdict import find_faults
from shared.database import DATABASE_ERRORS, Database

PROBE_SECONDS = 2.0

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process answers; asks nobody else."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Database and broker answer, and the workers work; `faults` says in sentences what is wrong with those."""
    state = request.app.state
    fleet, broker = await asyncio.gather(
        _find_fleet(state.database), asyncio.to_thread(is_broker_reachable, PROBE_SECONDS)
    )
    faults = () if fleet is None else find_faults(fleet, state.worker_silent_seconds)
    checks = {"database": fleet is not None, "broker": broker, "workers": fleet is not None and not faults}
    return JSONResponse({**checks, "faults": faults}, status_code=200 if all(checks.values()) else 503)


async def _find_fleet(database: Database) -> Fleet | None:
    """None: the database does not answer."""
    try:
        async with asyncio.timeout(PROBE_SECONDS), database.as_system() as connection:
            return await read_fleet(connection)
    except DATABASE_ERRORS:
        return None
