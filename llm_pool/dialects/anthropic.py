"""Anthropic's dialect: messages and token counts, for its official client and all that speak like it."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from uuid_utils.compat import uuid7

from llm_pool.asking.asking import AskablePool
from llm_pool.dialects.anthropic_answers import build_message, refuse
from llm_pool.dialects.anthropic_requests import read_count, read_messages
from llm_pool.dialects.anthropic_stream import MessageStream
from llm_pool.dialects.bodies import read_caller
from llm_pool.dialects.connection import (
    StreamedAnswer,
    answer_while_connected,
    build_route_class,
    close_unheard,
)


def build_routes(pool: AskablePool) -> APIRouter:
    """Below `/v1`, which its clients add to their base URL themselves."""
    router = APIRouter(prefix="/v1", route_class=build_route_class(refuse))

    @router.post("/messages")
    async def complete(request: Request) -> Response:
        """`model` names a model group; headers `X-Tenant-Id` and `X-Key-Id` say whom the cost is recorded for."""
        body = read_messages(await request.body())
        asked = body.to_request(read_caller(request.headers))
        message_id = f"msg_{uuid7().hex}"
        if body.stream:
            return StreamedAnswer(pool.stream(asked), MessageStream(message_id, body.model), refuse)
        response = await answer_while_connected(request, pool.complete(asked))
        return close_unheard() if response is None else JSONResponse(build_message(response, message_id))

    @router.post("/messages/count_tokens")
    async def count_tokens(request: Request) -> Response:
        """As the provider counts, where it does; else an estimate."""
        asked = read_count(await request.body()).to_request(read_caller(request.headers))
        count = await answer_while_connected(request, pool.count_tokens(asked))
        return close_unheard() if count is None else JSONResponse({"input_tokens": count.tokens})

    return router
