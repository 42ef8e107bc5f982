"""What every pool does, in this process or behind HTTP: one suite over both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

import pytest

from llm_pool.asking.asking import AskablePool
from llm_pool.catalog import ModelGroup
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.pool import Pool
from llm_pool.pool_status import PoolStatus
from llm_pool.remote.remote import RemotePool
from llm_pool.service import create_app
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    EmbeddingRequest,
    JsonFormat,
    ProviderChunk,
    StreamChunk,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from shared.attempts import Usage
from shared.clock import SystemClock
from shared.errors import (
    ConfigurationError,
    InputError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMStreamBrokenError,
    LLMTimeoutError,
    LLMUnavailableError,
    NotFoundError,
)
from tests.fakes.provider_server import OPENAI, send_json, serve
from tests.fakes.scripted_provider import END, Script, ask, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app


@pytest.fixture
def scripts() -> dict[str, Script]:
    return {"a": Script(), "b": Script()}


@pytest.fixture(params=["local", "remote"])
async def pool(request: pytest.FixtureRequest, scripts: dict[str, Script]) -> AsyncIterator[AskablePool]:
    catalog = build_catalog(
        ModelGroup("quality", (deploy("a"),), fallbacks=("fast",), retries=1),
        ModelGroup("fast", (deploy("b"),)),
    )
    retry = Retry(SystemClock(), Backoff(draw=lambda low, _: low))
    local = Pool(catalog, retry=retry, registry=build_registry(scripts))
    async with AsyncExitStack() as stack:
        if request.param == "local":
            stack.push_async_callback(local.aclose)
            yield local
        else:
            url = await stack.enter_async_context(serve_app(create_app(catalog, local)))
            remote = RemotePool(url)
            stack.push_async_callback(remote.aclose)
            yield remote


async def test_an_answer_with_its_attempts(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["a"].steps = [LLMOverloadedError("down")]
    scripts["b"].steps = ["fine ü 😀"]
    response = await pool.complete(ask("quality"))
    assert (response.content, response.provider, response.deployment) == ("fine ü 😀", "scripted", "b")
    assert (response.model, response.finish_reason, response.usage) == ("scripted-1", "stop", Usage(3, 2))
    assert [(attempt.deployment, attempt.error_type) for attempt in response.attempts] == [
        ("a", "LLMOverloadedError"),
        ("a", "LLMOverloadedError"),
        ("b", None),
    ]
    assert response.attempts[0].started_at.tzinfo is not None
    assert response.attempts[2].usage == Usage(3, 2)
    assert response.latency_seconds > 0


async def test_the_whole_request_reaches_the_provider(pool: AskablePool, scripts: dict[str, Script]) -> None:
    request = CompletionRequest(
        "quality",
        (
            ChatMessage("system", "be brief"),
            ChatMessage("user", "two ü", name="ann"),
            ChatMessage("assistant", tool_calls=(ToolCall("call-1", "look_up", '{"word": "ü"}'),)),
            ChatMessage("tool", "a letter", tool_call_id="call-1"),
        ),
        tenant_id="acme",
        key_id="key-1",
        timeout_seconds=9.0,
        temperature=0.5,
        max_tokens=7,
        top_p=0.25,
        stop=("\n\n", "END"),
        tools=(Tool("look_up", "a dictionary", {"type": "object", "properties": {"word": {}}}, strict=True),),
        tool_choice="required",
        json_format=JsonFormat({"type": "object"}, "word"),
        user="u-1",
        metadata={"purpose": "a test"},
    )
    await pool.complete(request)
    assert scripts["a"].asked == [request]
    assert scripts["a"].timeouts[0] == pytest.approx(9.0, abs=1)


async def test_a_stream_ends_with_the_whole_answer(pool: AskablePool, scripts: dict[str, Script]) -> None:
    call = ToolCallDelta(0, "call-1", "look_up", "{}")
    scripts["b"].streams = [["fi", "ne ü", ProviderChunk(tool_calls=(call,)), END]]
    chunks = [chunk async for chunk in pool.stream(ask())]
    assert [chunk.delta for chunk in chunks] == ["fi", "ne ü", "", ""]
    assert chunks[2].tool_calls == (call,)
    response = chunks[-1].response
    assert response is not None
    assert (response.content, response.usage, response.deployment) == ("fine ü", Usage(3, 2), "b")
    assert response.tool_calls == (ToolCall("call-1", "look_up", "{}"),)
    assert [attempt.error_type for attempt in response.attempts] == [None]
    assert chunks[-1].finish_reason == "stop"


async def test_a_long_stream_comes_whole(pool: AskablePool, scripts: dict[str, Script]) -> None:
    pieces = [f"{number} " * 100 for number in range(500)]
    scripts["b"].streams = [[*pieces, END]]
    *chunks, last = [chunk async for chunk in pool.stream(ask())]
    assert [chunk.delta for chunk in chunks] == pieces
    assert last.response is not None
    assert last.response.content == "".join(pieces)


async def test_a_stream_that_fails_before_its_first_piece_falls_back(
    pool: AskablePool, scripts: dict[str, Script]
) -> None:
    scripts["a"].streams = [[LLMOverloadedError("down")]]
    chunks = [chunk async for chunk in pool.stream(ask("quality"))]
    assert chunks[-1].response is not None
    assert chunks[-1].response.deployment == "b"


async def test_a_stream_that_nobody_begins_is_an_outage(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["b"].streams = [[LLMRateLimitedError("full", retry_after_seconds=61.25)]]
    with pytest.raises(LLMUnavailableError, match=r"^All providers unavailable$") as caught:
        await anext(aiter(pool.stream(ask())))
    assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMRateLimitedError"]
    assert caught.value.retry_after_seconds == 61.25


async def test_a_stream_that_breaks_keeps_what_had_come(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["b"].streams = [["fi", LLMOverloadedError("down", retry_after_seconds=7.5)]]
    chunks: list[StreamChunk] = []
    with pytest.raises(LLMStreamBrokenError, match="after 2 characters: down") as caught:
        await collect(pool.stream(ask()), chunks)
    assert [chunk.delta for chunk in chunks] == ["fi"]
    assert caught.value.partial_text == "fi"
    assert type(caught.value.__cause__) is LLMOverloadedError
    assert caught.value.retry_after_seconds == 7.5
    assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMStreamBrokenError"]


async def collect(stream: AsyncIterator[StreamChunk], chunks: list[StreamChunk]) -> None:
    async for chunk in stream:
        chunks.append(chunk)


async def test_whoever_stops_reading_a_stream_cancels_it(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["b"].streams = [["fi"]]
    scripts["b"].hangs = True
    async with aclosing(pool.stream(ask())) as chunks:
        assert (await anext(chunks)).delta == "fi"
    await asyncio.wait_for(scripts["b"].cancelled.wait(), 1)


async def test_vectors(pool: AskablePool) -> None:
    request = EmbeddingRequest("fast", ("one", "three ü"), dimensions=2, tenant_id="acme")
    response = await pool.embed(request)
    assert response.vectors == ((3.0, 1.0), (7.0, 1.0))
    assert (response.dimension, response.usage, response.deployment) == (2, Usage(3, 0), "b")


async def test_vectors_of_nothing_are_refused(pool: AskablePool) -> None:
    with pytest.raises(InputError) as caught:
        await pool.embed(EmbeddingRequest("fast", ()))
    assert caught.value.field == "inputs"


async def test_nobody_answers(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["a"].steps = [LLMRateLimitedError("full", retry_after_seconds=61.25)]
    scripts["b"].steps = [LLMOverloadedError("down", retry_after_seconds=90)]
    with pytest.raises(LLMUnavailableError, match=r"^All providers unavailable$") as caught:
        await pool.complete(ask("quality"))
    assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMRateLimitedError", "LLMOverloadedError"]
    assert caught.value.attempts[0].error_message == "full"
    assert caught.value.retry_after_seconds == 61.25


@pytest.mark.parametrize(
    "error", [LLMInvalidRequestError("bad ü"), LLMContextTooLongError("long"), LLMContentBlockedError("no")]
)
async def test_what_no_other_deployment_would_mend(
    pool: AskablePool, scripts: dict[str, Script], error: LLMError
) -> None:
    scripts["a"].steps = [error]
    with pytest.raises(LLMError) as caught:
        await pool.complete(ask("quality"))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert [attempt.error_type for attempt in caught.value.attempts] == [type(error).__name__]


async def test_out_of_time(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["a"].steps = [LLMTimeoutError("slow")]
    with pytest.raises(LLMTimeoutError) as caught:
        await pool.complete(ask("quality", timeout_seconds=1e-9))
    assert caught.value.parks


@pytest.mark.parametrize("seconds", ["5", [5], 0, float("nan")])
async def test_a_bound_that_is_none(pool: AskablePool, seconds: Any) -> None:
    for answering in (
        pool.complete(ask(timeout_seconds=seconds)),
        pool.embed(EmbeddingRequest("fast", ("one",), timeout_seconds=seconds)),
        collect(pool.stream(ask(timeout_seconds=seconds)), []),
    ):
        with pytest.raises(InputError) as caught:
            await answering
        assert caught.value.field == "timeout_seconds"


async def test_an_unknown_group(pool: AskablePool) -> None:
    with pytest.raises(NotFoundError, match="quality, fast") as caught:
        await pool.complete(ask("best"))
    assert caught.value.field == "model"


@pytest.mark.parametrize("text", ["a\x00b", "half \ud83d"])
async def test_text_that_cannot_be_kept(pool: AskablePool, text: str) -> None:
    with pytest.raises(InputError) as caught:
        await pool.complete(ask("fast", text))
    assert caught.value.field == "messages.0.content"


def test_a_pool_service_needs_an_http_address() -> None:
    with pytest.raises(ConfigurationError, match="address is 'llm-pool:8002': set LLM_POOL_URL to an http://"):
        RemotePool("llm-pool:8002")


async def test_no_messages(pool: AskablePool) -> None:
    with pytest.raises(InputError) as caught:
        await pool.complete(replace(ask(), messages=()))
    assert caught.value.field == "messages"


async def test_cancelling_reaches_the_provider(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["a"].hangs = True
    task = asyncio.create_task(pool.complete(ask("quality")))
    await asyncio.wait_for(scripts["a"].started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(scripts["a"].cancelled.wait(), 1)


async def test_two_hundred_requests_at_once(pool: AskablePool, scripts: dict[str, Script]) -> None:
    scripts["b"].hangs = True
    tasks = [asyncio.create_task(pool.complete(ask())) for _ in range(200)]
    async with asyncio.timeout(10):
        while len(scripts["b"].asked) < 200:
            scripts["b"].started.clear()
            await scripts["b"].started.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_short_forms_are_the_same(pool: Pool | RemotePool, scripts: dict[str, Script]) -> None:
    assert (await pool.chat("hello", "be brief", model="fast")).content == "fine"
    assert scripts["b"].asked[0].messages == (ChatMessage("system", "be brief"), ChatMessage("user", "hello"))
    scripts["b"].steps = ['{"age": 7}']
    assert (await pool.json("how old?", model="fast")).value == {"age": 7}


async def test_the_length_of_a_prompt(pool: AskablePool) -> None:
    count = await pool.count_tokens(ask("fast", "hello " * 100))
    assert 50 < count.tokens < 300
    assert not count.is_exact
    with pytest.raises(NotFoundError):
        await pool.count_tokens(ask("best"))


async def test_who_is_there(pool: AskablePool) -> None:
    assert await pool.health() == {"a": True, "b": True}


async def test_a_server_that_is_no_pool_service_has_nobody() -> None:
    body = {"error": NotFoundError("path", "there is none such", "ask another").as_dict()}
    async with serve(OPENAI) as server:
        server.behave = send_json(body, 404)
        remote = RemotePool(server.base_url)
        assert await remote.health() == {}
        await remote.aclose()


async def test_how_it_stands(pool: AskablePool) -> None:
    assert isinstance(await pool.get_status(), PoolStatus)
