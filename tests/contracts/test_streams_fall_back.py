"""A stream through the whole pool with two real servers: who answers, and who never answers in another's place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from llm_pool.catalog import Catalog, ModelGroup
from llm_pool.pool import Pool
from llm_pool.types import StreamChunk
from shared import errors
from tests.contracts.served import REQUEST, describe
from tests.fakes.dialects import ANTHROPIC, OPENAI
from tests.fakes.provider_server import (
    Behaviour,
    ProviderServer,
    never_answer,
    reset,
    send_bytes,
    send_json,
    send_stream,
    serve,
)


@asynccontextmanager
async def pool_of(behave: Behaviour) -> AsyncIterator[tuple[Pool, ProviderServer, ProviderServer]]:
    """The first deployment behaves so; the second answers `fine`."""
    async with serve(OPENAI) as first, serve(ANTHROPIC) as second:
        first.behave = behave
        deployments = (describe(first, "first"), describe(second, "second"))
        pool = Pool(Catalog({"fast": ModelGroup("fast", deployments, strategy="priority", retries=0)}))
        try:
            yield pool, first, second
        finally:
            await pool.aclose()


@pytest.mark.parametrize(
    "behave",
    [
        send_bytes(b"", content_type="text/event-stream"),
        send_stream(OPENAI, OPENAI.pieces([])),
        send_stream(OPENAI, [OPENAI.event(OPENAI.overloaded)]),
        send_json({"error": {"code": 502, "message": "upstream is down"}}),
        send_json(OPENAI.error("no such key"), 401),
        reset,
    ],
    ids=["empty", "only its beginning", "error event", "error in HTTP 200", "bad key", "reset"],
)
async def test_what_fails_before_its_first_token_is_answered_by_the_next(behave: Behaviour) -> None:
    async with pool_of(behave) as (pool, _, second):
        chunks = [chunk async for chunk in pool.stream(REQUEST)]
        assert "".join(chunk.delta for chunk in chunks) == "fine"
        response = chunks[-1].response
        assert response is not None
        assert [attempt.deployment for attempt in response.attempts] == ["first", "second"]
        assert len(second.received) == 1


async def test_what_fails_after_its_first_token_is_never_continued_by_another() -> None:
    async with pool_of(send_stream(OPENAI, OPENAI.pieces(["fi"]), then=reset)) as (pool, _, second):
        received: list[StreamChunk] = []
        with pytest.raises(errors.LLMStreamBrokenError) as caught:
            await collect(pool, received)
        assert "".join(chunk.delta for chunk in received) == caught.value.partial_text == "fi"
        assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMStreamBrokenError"]
        assert second.received == []


async def test_who_stops_reading_closes_the_socket_of_the_provider() -> None:
    async with pool_of(send_stream(OPENAI, OPENAI.pieces(["fi"]), then=never_answer)) as (pool, first, _):
        async with aclosing(pool.stream(REQUEST)) as chunks:
            assert (await anext(chunks)).delta == "fi"
        await asyncio.wait_for(first.hung_up.wait(), 1)


async def collect(pool: Pool, into: list[StreamChunk]) -> None:
    async for chunk in pool.stream(REQUEST):
        into.append(chunk)
