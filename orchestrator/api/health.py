"""Is this process alive, and can it do its work."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy import text

from orchestrator.dispatch import is_broker_reachable
from shared.database import DATABASE_ERRORS, Database

PROBE_SECONDS = 2.0

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process answers; asks nobody else."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Database and broker answer too."""
    database, broker = await asyncio.gather(
        _is_database_reachable(request.app.state.database), asyncio.to_thread(is_broker_reachable, PROBE_SECONDS)
    )
    checks = {"database": database, "broker": broker}
    return JSONResponse(checks, status_code=200 if all(checks.values()) else 503)


async def _is_database_reachable(database: Database) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS), database.as_system() as connection:
            await connection.execute(text("select 1"))
    except DATABASE_ERRORS:
        return False
    return True
