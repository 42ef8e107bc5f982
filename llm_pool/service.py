"""The pool behind HTTP, for callers in other languages and for workers that should hold no provider's key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from llm_pool.asking.asking import AskablePool
from llm_pool.assembly import open_pool
from llm_pool.catalog import Catalog
from llm_pool.catalogs.catalog_file import Lookup
from llm_pool.dialects import anthropic, models, openai, own
from llm_pool.remote.wire_bodies import describe_fault, read_fault
from llm_pool.status.metrics import Metrics, open_metrics
from shared.clock import Clock, SystemClock
from shared.cross_site import RefuseCrossSite
from shared.errors import InputError
from shared.settings import Settings, find_secret


async def open_service(settings: Settings, lookup: Lookup = find_secret) -> FastAPI:
    """The app for these settings, with whatever pool they give.

    Raises:
        ConfigurationError: in one sentence, before anything listens.
    """
    metrics = open_metrics(settings.prometheus_multiproc_dir)
    catalog, pool = await open_pool(settings, meter=metrics, lookup=lookup)
    return create_app(catalog, pool, metrics=metrics)


def create_app(
    catalog: Catalog, pool: AskablePool, *, metrics: Metrics | None = None, clock: Clock | None = None
) -> FastAPI:
    """The app closes the pool when it ends. Without `metrics` it has no `/metrics`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await pool.aclose()

    app = FastAPI(title="llmyard pool", lifespan=lifespan)
    app.add_middleware(RefuseCrossSite)
    _add_error_handlers(app)
    _add_health(app, catalog)
    if metrics is not None:
        _add_metrics(app, metrics)
    app.include_router(own.build_routes(pool))
    app.include_router(openai.build_routes(pool, clock or SystemClock()))
    app.include_router(anthropic.build_routes(pool))
    app.include_router(models.build_routes(catalog))
    return app


def _add_health(app: FastAPI, catalog: Catalog) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """This process is alive."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Somebody could be asked."""
        if catalog.deployments:
            return JSONResponse({"status": "ready", "groups": list(catalog.group_names)})
        return JSONResponse({"status": "not ready", "reason": "no usable deployment"}, status_code=503)


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/metrics")
    async def expose(request: Request) -> Response:
        """In Prometheus' text form."""
        # Many processes mean many files to read.
        exposition = await asyncio.to_thread(metrics.expose, request.headers.get("Accept", ""))
        return Response(exposition.body, headers={"Content-Type": exposition.content_type})


def _add_error_handlers(app: FastAPI) -> None:
    """For the paths that no dialect has claimed, and for llmyard's own."""

    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": error.as_dict()}, status_code=error.http_status)

    @app.exception_handler(RequestValidationError)
    async def refuse_shape(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": read_fault(error.errors()[0], own.REMEDY).as_dict()}, status_code=422)

    @app.exception_handler(HTTPException)
    async def refuse_http(_: Request, error: HTTPException) -> JSONResponse:
        """FastAPI answers a body that is no text with 400; everything wrong with a body is 422 here."""
        status = 422 if error.status_code == 400 else error.status_code
        fault = describe_fault((), str(error.detail), own.REMEDY)
        return JSONResponse({"error": fault.as_dict()}, status_code=status, headers=error.headers)
