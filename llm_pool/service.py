"""The pool behind HTTP, for callers in other languages and for workers that should hold no provider's key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from llm_pool.call import CompletionPool
from llm_pool.catalog import Catalog
from llm_pool.catalog_file import Lookup
from llm_pool.pool import Pool
from llm_pool.startup import choose_catalog
from llm_pool.types import CompletionRequest, CompletionResponse
from llm_pool.wire import (
    STATUS_BY_ERROR,
    CompleteBody,
    build_error_body,
    build_error_headers,
    describe_fault,
    dump_response,
)
from shared.errors import InputError, LLMError
from shared.settings import Settings, find_secret

CLIENT_CLOSED_REQUEST = 499
"""Nobody reads it; it keeps the access log true."""


async def open_service(settings: Settings, lookup: Lookup = find_secret) -> FastAPI:
    """The app for these settings, with whatever pool they give.

    Raises:
        ConfigurationError: in one sentence, before anything listens.
    """
    catalog = await choose_catalog(settings.llmyard_config, lookup, settings.llmyard_mock_when_no_provider)
    return create_app(catalog, Pool(catalog))


def create_app(catalog: Catalog, pool: CompletionPool) -> FastAPI:
    """The app closes the pool when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await pool.aclose()

    app = FastAPI(title="llmyard pool", lifespan=lifespan)
    _add_error_handlers(app)
    _add_health(app, catalog)

    @app.post("/complete", response_model=CompletionResponse)
    async def complete(body: CompleteBody, request: Request) -> Response:
        try:
            response = await _complete_while_connected(pool, body.to_request(), request)
        except LLMError as error:
            return JSONResponse(
                build_error_body(error, body.include_attempts),
                status_code=STATUS_BY_ERROR[type(error)],
                headers=build_error_headers(error),
            )
        if response is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return Response(dump_response(response), media_type="application/json")

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


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": error.as_dict()}, status_code=error.http_status)

    @app.exception_handler(RequestValidationError)
    async def refuse_shape(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = () if first["type"] == "json_invalid" else first["loc"]  # else the place is an offset in the text
        return JSONResponse({"error": describe_fault(place, first["msg"]).as_dict()}, status_code=422)

    @app.exception_handler(HTTPException)
    async def refuse_http(_: Request, error: HTTPException) -> JSONResponse:
        """FastAPI answers a body that is no text with 400; everything wrong with a body is 422 here."""
        status = 422 if error.status_code == 400 else error.status_code
        fault = describe_fault((), str(error.detail))
        return JSONResponse({"error": fault.as_dict()}, status_code=status, headers=error.headers)


async def _complete_while_connected(
    pool: CompletionPool, request: CompletionRequest, connection: Request
) -> CompletionResponse | None:
    """None when the caller hung up: its call is cancelled then, which closes the socket to the provider."""
    answering = asyncio.ensure_future(pool.complete(request))
    hanging_up = asyncio.ensure_future(connection.receive())
    try:
        # The body has been read, so the only thing still to come from the caller is its end.
        await asyncio.wait((answering, hanging_up), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        hanging_up.cancel()
        await asyncio.gather(answering, hanging_up, return_exceptions=True)
