"""Streams through the whole pool: who answers, what is handed on, and what becomes of a stream that breaks."""

import asyncio
from contextlib import aclosing

import pytest

from llm_pool.catalog import ModelGroup
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.pool import Pool
from llm_pool.types import EmbeddingRequest, ProviderChunk, StreamChunk, ToolCall, ToolCallDelta
from shared.attempts import Usage
from shared.errors import (
    LLMBrokenAnswerError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMStreamBrokenError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import END, Piece, Script, ask, build_catalog, build_registry, deploy


def build_pool(retries: int = 0, timeout_seconds: float = 60.0, **scripts: Script) -> Pool:
    clock = MovingClock()
    deployments = tuple(deploy(name, timeout_seconds=timeout_seconds) for name in scripts)
    catalog = build_catalog(ModelGroup("fast", deployments, strategy="priority", retries=retries))
    retry = Retry(clock, Backoff(draw=lambda low, _: low), clock.sleep)
    return Pool(catalog, clock=clock, retry=retry, registry=build_registry(scripts, clock))


def streaming(*pieces: Piece) -> Script:
    return Script(streams=[list(pieces)])


async def read(pool: Pool, into: list[StreamChunk] | None = None) -> list[StreamChunk]:
    """`into` keeps what came before a failure."""
    chunks = [] if into is None else into
    async for chunk in pool.stream(ask()):
        chunks.append(chunk)
    return chunks


async def test_the_pieces_come_in_order_and_the_last_chunk_holds_the_whole_answer() -> None:
    chunks = await read(build_pool(a=streaming("fi", "ne", "!", END)))
    assert [chunk.delta for chunk in chunks] == ["fi", "ne", "!", ""]
    response = chunks[-1].response
    assert response is not None
    assert chunks[-1].finish_reason == "stop"
    assert (response.content, response.deployment, response.usage) == ("fine!", "a", Usage(3, 2))
    assert [attempt.error_type for attempt in response.attempts] == [None]


async def test_a_tool_call_in_pieces_is_put_together() -> None:
    first = ProviderChunk(tool_calls=(ToolCallDelta(0, "call-1", "weather", '{"ci'),))
    second = ProviderChunk(tool_calls=(ToolCallDelta(0, arguments='ty": 1}'),))
    end = ProviderChunk(finish_reason="tool_calls")
    chunks = await read(build_pool(a=streaming(first, second, end)))
    response = chunks[-1].response
    assert response is not None
    assert response.tool_calls == (ToolCall("call-1", "weather", '{"city": 1}'),)


@pytest.mark.parametrize(
    "pieces",
    [
        [LLMOverloadedError("down")],
        [],
        [END],
        [ProviderChunk("", finish_reason=None), LLMBrokenAnswerError("an error inside HTTP 200")],
    ],
    ids=["error", "nothing", "only its end", "error after an empty piece"],
)
async def test_what_fails_before_its_first_token_is_answered_by_the_next(pieces: list[Piece]) -> None:
    chunks = await read(build_pool(a=streaming(*pieces), b=streaming("other", END)))
    assert [chunk.delta for chunk in chunks] == ["other", ""]
    assert chunks[-1].response is not None
    assert [attempt.deployment for attempt in chunks[-1].response.attempts] == ["a", "b"]


async def test_what_fails_before_its_first_token_is_tried_again_at_the_same_deployment() -> None:
    script = Script(streams=[[LLMOverloadedError("down")], ["fine", END]])
    chunks = await read(build_pool(a=script, retries=1))
    assert [chunk.delta for chunk in chunks] == ["fine", ""]


@pytest.mark.parametrize(
    ("last", "cause"),
    [(LLMOverloadedError("mid-stream"), LLMOverloadedError), (ProviderChunk(""), LLMBrokenAnswerError)],
    ids=["error event", "it just ends"],
)
async def test_after_the_first_token_nobody_else_goes_on_in_silence(last: Piece, cause: type[Exception]) -> None:
    other = streaming("other", END)
    received: list[StreamChunk] = []
    with pytest.raises(LLMStreamBrokenError) as caught:
        await read(build_pool(a=streaming("fi", "n", last), b=other, retries=2), received)
    assert [chunk.delta for chunk in received] == ["fi", "n"]
    assert caught.value.partial_text == "fin"
    assert type(caught.value.__cause__) is cause
    assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMStreamBrokenError"]
    assert other.asked == []


async def test_a_stream_that_stands_still_is_given_up_with_what_had_come() -> None:
    script = Script(streams=[["fi"]], hangs=True)
    with pytest.raises(LLMStreamBrokenError) as caught:
        await read(build_pool(a=script, timeout_seconds=0.05))
    assert type(caught.value.__cause__) is LLMTimeoutError
    assert script.cancelled.is_set()


async def test_closing_the_stream_ends_the_call_at_the_provider() -> None:
    script = Script(streams=[["fi"]], hangs=True)
    async with aclosing(build_pool(a=script).stream(ask())) as chunks:
        assert (await anext(chunks)).delta == "fi"
    assert script.cancelled.is_set()


async def test_cancelling_who_reads_ends_the_call_at_the_provider() -> None:
    script = Script(streams=[["fi"]], hangs=True)
    reading = asyncio.create_task(read(build_pool(a=script)))
    await script.started.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert script.cancelled.is_set()


async def test_everybody_failing_before_the_first_token_is_an_outage() -> None:
    with pytest.raises(LLMUnavailableError) as caught:
        await read(build_pool(a=streaming(LLMOverloadedError("down")), b=streaming()))
    assert len(caught.value.attempts) == 2


async def test_what_no_other_would_mend_is_raised_as_it_is() -> None:
    with pytest.raises(LLMInvalidRequestError):
        await read(build_pool(a=streaming(LLMInvalidRequestError("bad")), b=streaming("fine", END)))


async def test_a_piece_that_cannot_be_stored_is_mended() -> None:
    chunks = await read(build_pool(a=streaming("a\x00b", END)))
    assert chunks[0].delta == "a\N{REPLACEMENT CHARACTER}b"


async def test_vectors_go_through_the_same_rings() -> None:
    response = await build_pool(a=Script()).embed(EmbeddingRequest("fast", ("one", "three"), tenant_id="acme"))
    assert response.vectors == ((3.0, 1.0), (5.0, 1.0))
    assert response.dimension == 2
    assert [attempt.usage for attempt in response.attempts] == [Usage(3, 0)]
