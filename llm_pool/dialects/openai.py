"""OpenAI's dialect: chat completions, embeddings and models, for its official client and all that speak like it."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from uuid_utils.compat import uuid7

from llm_pool.call import CompletionPool
from llm_pool.dialects.bodies import read_caller
from llm_pool.dialects.connection import (
    StreamedAnswer,
    answer_while_connected,
    build_route_class,
    close_unheard,
)
from llm_pool.dialects.openai_answers import ChatStream, build_completion, build_embeddings, refuse
from llm_pool.dialects.openai_requests import read_chat, read_embeddings
from shared.clock import Clock


def build_routes(pool: CompletionPool, clock: Clock) -> APIRouter:
    """Below `/v1`, where its clients' base URL points."""
    router = APIRouter(prefix="/v1", route_class=build_route_class(refuse))

    @router.post("/chat/completions")
    async def complete(request: Request) -> Response:
        """`model` names a model group; headers `X-Tenant-Id` and `X-Key-Id` say whom the cost is recorded for."""
        body = read_chat(await request.body())
        asked = body.to_request(read_caller(request.headers))
        completion_id, created = f"chatcmpl-{uuid7().hex}", int(clock.now().timestamp())
        if body.stream:
            dialect = ChatStream(completion_id, created, body.model, body.includes_usage)
            return StreamedAnswer(pool.stream(asked), dialect, refuse)
        response = await answer_while_connected(request, pool.complete(asked))
        return close_unheard() if response is None else JSONResponse(build_completion(response, completion_id, created))

    @router.post("/embeddings")
    async def embed(request: Request) -> Response:
        """Likewise."""
        body = read_embeddings(await request.body())
        asked = body.to_request(read_caller(request.headers))
        response = await answer_while_connected(request, pool.embed(asked))
        return close_unheard() if response is None else JSONResponse(build_embeddings(response, body.encoding_format))

    return router
