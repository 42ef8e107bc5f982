"""llmyard's own dialect: everything a request and an answer can say, with what was tried."""

from collections.abc import Iterable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from llm_pool.asking.asking import AskablePool, TokenCount
from llm_pool.dialects.connection import StreamedAnswer, answer_while_connected, close_unheard
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.pool_status import PoolStatus
from llm_pool.remote.wire import (
    build_error_body,
    build_error_headers,
    choose_status,
    dump_chunk,
    dump_embedding,
    dump_error_line,
    dump_response,
    dump_status,
    dump_token_count,
)
from llm_pool.remote.wire_bodies import CompleteBody, EmbedBody
from llm_pool.types import CompletionResponse, EmbeddingResponse, StreamChunk
from shared.errors import InputError, LLMError

REMEDY = "send {model, messages: [{role, content}], tenant_id} as application/json"


def build_routes(pool: AskablePool) -> APIRouter:
    """`/complete`, `/stream`, `/embed`, `/count_tokens`, `/deployments` and `/status`."""
    router = APIRouter()
    _add_answers(router, pool)
    _add_inspections(router, pool)
    return router


def _add_answers(router: APIRouter, pool: AskablePool) -> None:
    @router.post("/complete", response_model=CompletionResponse)
    async def complete(body: CompleteBody, request: Request) -> Response:
        config = body.to_config()
        try:
            response = await answer_while_connected(request, pool.complete(body.to_request(), config))
        except LLMError as error:
            return refuse(error, body.include_attempts, config.budget_tracker)
        return close_unheard() if response is None else _answer(dump_response(response))

    @router.post("/stream")
    async def stream(body: CompleteBody) -> Response:
        """One JSON object a line; the last one has `response`, or `error`. A stream without either was cut off."""
        config = body.to_config()
        chunks, tracker = pool.stream(body.to_request(), config), config.budget_tracker
        lines = _Lines(body.include_attempts, tracker)
        return StreamedAnswer(chunks, lines, lambda error: refuse(error, body.include_attempts, tracker))

    @router.post("/embed", response_model=EmbeddingResponse)
    async def embed(body: EmbedBody, request: Request) -> Response:
        config = body.to_config()
        try:
            response = await answer_while_connected(request, pool.embed(body.to_request(), config))
        except LLMError as error:
            return refuse(error, body.include_attempts, config.budget_tracker)
        return close_unheard() if response is None else _answer(dump_embedding(response))


def _add_inspections(router: APIRouter, pool: AskablePool) -> None:
    @router.post("/count_tokens", response_model=TokenCount)
    async def count_tokens(body: CompleteBody, request: Request) -> Response:
        count = await answer_while_connected(request, pool.count_tokens(body.to_request()))
        return close_unheard() if count is None else _answer(dump_token_count(count))

    @router.get("/deployments")
    async def health() -> dict[str, bool]:
        """Whether each deployment is there, asked now."""
        return dict(await pool.health())

    @router.get("/status", response_model=PoolStatus)
    async def status() -> Response:
        """Quotas, and who answered last."""
        return _answer(dump_status(await pool.get_status()))


def refuse(
    error: LLMError | InputError, include_attempts: bool = False, tracker: BudgetTracker | None = None
) -> Response:
    """`tracker` is the purse that came with the request: who sent it along is told what became of it."""
    if isinstance(error, InputError):
        return JSONResponse({"error": error.as_dict()}, status_code=error.http_status)
    return JSONResponse(
        build_error_body(error, include_attempts, None if tracker is None else tracker.spent),
        status_code=choose_status(error),
        headers=build_error_headers(error),
    )


def _answer(body: bytes) -> Response:
    return Response(body, media_type="application/json")


class _Lines:
    """Newline-delimited JSON."""

    media_type = "application/x-ndjson"

    def __init__(self, include_attempts: bool, tracker: BudgetTracker | None) -> None:
        self._include_attempts = include_attempts
        self._tracker = tracker

    def open(self) -> Iterable[bytes]:
        return ()

    def write(self, chunk: StreamChunk) -> Iterable[bytes]:
        return (dump_chunk(chunk),)

    def write_error(self, error: LLMError) -> Iterable[bytes]:
        spent_usd = None if self._tracker is None else self._tracker.spent
        return (dump_error_line(error, self._include_attempts, spent_usd),)
