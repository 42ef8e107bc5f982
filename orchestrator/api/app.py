"""The API process: which dialects it serves, how it opens and closes, and what an error looks like."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from llm_pool.status.metrics import open_metrics
from orchestrator.api import failed_requests, health, jobs, metrics, quota
from orchestrator.wiring import build_front_door, open_database, open_fleet_view
from shared.cross_site import RefuseCrossSite
from shared.database import DATABASE_ERRORS, is_unreachable
from shared.errors import InputError
from shared.settings import Settings

log = structlog.get_logger()


async def open_api(settings: Settings) -> FastAPI:
    """The application, on a database that answers; it closes what it opened.

    Raises:
        ConfigurationError: in one sentence, before anything listens.
    """
    settings.require_broker_url()
    own_metrics = open_metrics(directory=settings.prometheus_multiproc_dir)
    database = await open_database(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aclosing(database), open_fleet_view(settings) as app.state.fleet_view:
            yield

    app = FastAPI(title="llmyard", lifespan=lifespan)
    app.add_middleware(RefuseCrossSite)
    app.state.database = database
    app.state.worker_silent_seconds = settings.llmyard_worker_silent_seconds
    app.state.front_door = build_front_door(settings, database)
    app.state.metrics = own_metrics
    for part in (jobs, failed_requests, health, metrics, quota):
        app.include_router(part.router)
    app.add_exception_handler(InputError, _answer_input_error)
    app.add_exception_handler(RequestValidationError, _answer_bad_parameter)
    for fault in DATABASE_ERRORS:
        app.add_exception_handler(fault, _answer_database_fault)
    return app


async def _answer_input_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InputError), "registered for InputError only"
    return JSONResponse({"error": error.as_dict()}, status_code=error.http_status)


async def _answer_bad_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), "registered for RequestValidationError only"
    first = error.errors()[0]
    problem = InputError(str(first["loc"][-1]), "cannot be used", str(first["msg"]).lower())
    return await _answer_input_error(request, problem)


async def _answer_database_fault(_: Request, error: Exception) -> JSONResponse:
    """Nothing was taken in: the caller may send the same again."""
    if not is_unreachable(error):
        raise error
    log.warning("database_unreachable", error=str(error))
    problem = InputError("database", "cannot be reached", "send the same again in a moment")
    return JSONResponse({"error": problem.as_dict()}, status_code=503, headers={"Retry-After": "1"})
