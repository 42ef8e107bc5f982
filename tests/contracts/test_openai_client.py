"""The official `openai` client, as it is, talks to the pool service."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from decimal import Decimal

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from llm_pool.catalog import ModelGroup
from llm_pool.pool import Pool
from llm_pool.service import create_app
from llm_pool.types import ChatMessage, JsonFormat, ProviderAnswer, ProviderChunk, Tool, ToolCall, ToolCallDelta
from shared.attempts import Usage
from shared.clock import SystemClock
from shared.errors import (
    LLMBudgetExceededError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMTimeoutError,
)
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app

CATALOG = build_catalog(ModelGroup("fast", (deploy("a"),), retries=0))
HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "now",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def url(script: Script) -> AsyncIterator[str]:
    app = create_app(CATALOG, Pool(CATALOG, registry=build_registry({"a": script})), clock=SystemClock())
    async with serve_app(app) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def test_a_chat(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="fast", messages=HELLO)
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "fine", "stop")
    assert completion.model == "scripted-1"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (
        3,
        2,
        5,
    )
    assert completion.id.startswith("chatcmpl-")
    assert completion.created > 1_700_000_000
    assert completion.model_extra["llmyard"]["deployment"] == "a"


async def test_everything_asked_for_reaches_the_provider(client: AsyncOpenAI, script: Script) -> None:
    await client.chat.completions.create(
        model="fast",
        messages=[
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "wea"}, {"type": "text", "text": "ther?"}],
                "name": "ann",
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "call-1", "content": "rain"},
        ],
        temperature=0.5,
        max_tokens=9,
        max_completion_tokens=7,
        top_p=0.25,
        stop="END",
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        response_format={"type": "json_schema", "json_schema": {"name": "word", "schema": {"type": "object"}}},
        user="u-1",
        metadata={"purpose": "a test"},
        seed=1,
        reasoning_effort="low",
        n=1,
        extra_headers={"X-Tenant-Id": "acme", "X-Key-Id": "key-1"},
    )
    (request,) = script.asked
    assert request.messages == (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "weather?", "ann"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("call-1", "get_weather", "{}"),)),
        ChatMessage("tool", "rain", tool_call_id="call-1"),
    )
    assert (request.temperature, request.max_tokens, request.top_p, request.stop) == (0.5, 7, 0.25, ("END",))
    assert request.tools == (Tool("get_weather", "now", WEATHER["function"]["parameters"], strict=True),)
    assert request.tool_choice == "get_weather"
    assert request.json_format == JsonFormat({"type": "object"}, "word")
    assert (request.user, request.metadata) == ("u-1", {"purpose": "a test"})
    assert (request.tenant_id, request.key_id) == ("acme", "key-1")


async def test_a_stream(client: AsyncOpenAI, script: Script) -> None:
    stream = await client.chat.completions.create(
        model="fast", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "fine"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 2)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_that_wants_no_usage_has_none(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="fast", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


async def test_the_helper_for_streams_puts_tool_calls_together(client: AsyncOpenAI, script: Script) -> None:
    script.streams = [
        [
            "one moment",
            ProviderChunk(tool_calls=(ToolCallDelta(0, "call-1", "get_weather", '{"city": "Bo'),)),
            ProviderChunk(tool_calls=(ToolCallDelta(0, arguments='nn"}'),)),
            ProviderChunk(tool_calls=(ToolCallDelta(1, "call-2", "get_weather", '{"city": "Ulm"}'),)),
            ProviderChunk(finish_reason="tool_calls", usage=Usage(3, 2)),
        ]
    ]
    async with client.chat.completions.stream(model="fast", messages=HELLO, tools=[WEATHER]) as stream:
        completion = await stream.get_final_completion()
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "one moment")
    assert [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()] == [
        ("call-1", "get_weather", '{"city": "Bonn"}'),
        ("call-2", "get_weather", '{"city": "Ulm"}'),
    ]


async def test_a_tool_call_and_its_result(client: AsyncOpenAI, script: Script) -> None:
    call = ToolCall("call-1", "get_weather", '{"city": "Bonn"}')
    script.steps = [ProviderAnswer("", "scripted-1", "tool_calls", tool_calls=(call,)), "rain"]
    messages: list[object] = list(HELLO)
    first = await client.chat.completions.create(model="fast", messages=messages, tools=[WEATHER])
    said = first.choices[0].message
    assert (first.choices[0].finish_reason, said.content) == ("tool_calls", None)
    assert said.tool_calls
    assert json.loads(said.tool_calls[0].function.arguments) == {"city": "Bonn"}
    messages += [said, {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "rain"}]
    second = await client.chat.completions.create(model="fast", messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "rain"
    assert script.asked[1].messages[1].tool_calls == (call,)


async def test_an_answer_parsed_into_a_model(client: AsyncOpenAI, script: Script) -> None:
    class Weather(BaseModel):
        degrees: int

    script.steps = ['{"degrees": 7}']
    completion = await client.chat.completions.parse(model="fast", messages=HELLO, response_format=Weather)
    assert completion.choices[0].message.parsed == Weather(degrees=7)
    assert script.asked[0].json_format is not None
    assert script.asked[0].json_format.name == "Weather"


SIGNED = ToolCall("call-1", "get_weather", "{}", '{"google": {"thought_signature": "AY89"}}')


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_what_a_provider_signed_comes_back_with_the_call(
    client: AsyncOpenAI, script: Script, is_streamed: bool
) -> None:
    delta = ToolCallDelta(0, SIGNED.id, SIGNED.name, SIGNED.arguments, SIGNED.provider_data)
    script.steps = [ProviderAnswer("", "scripted-1", "tool_calls", tool_calls=(SIGNED,)), "rain"]
    script.streams = [[ProviderChunk(tool_calls=(delta,), finish_reason="tool_calls")]]
    if is_streamed:
        async with client.chat.completions.stream(model="fast", messages=HELLO, tools=[WEATHER]) as stream:
            said = (await stream.get_final_completion()).choices[0].message
        script.steps = ["rain"]
    else:
        said = (await client.chat.completions.create(model="fast", messages=HELLO, tools=[WEATHER])).choices[0].message
    messages = [*HELLO, said, {"role": "tool", "tool_call_id": "call-1", "content": "rain"}]
    await client.chat.completions.create(model="fast", messages=messages, tools=[WEATHER])
    assert script.asked[1].messages[1].tool_calls == (SIGNED,)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings(client: AsyncOpenAI, encoding: str | None) -> None:
    wanted = {} if encoding is None else {"encoding_format": encoding}
    answer = await client.embeddings.create(model="fast", input=["one", "three ü"], **wanted)
    vectors = [item.embedding for item in answer.data]
    if encoding == "base64":
        vectors = [list(struct.unpack("<2f", base64.b64decode(str(vector)))) for vector in vectors]
    assert vectors == [[3.0, 1.0], [7.0, 1.0]]
    assert [item.index for item in answer.data] == [0, 1]
    assert (answer.model, answer.usage.prompt_tokens) == ("scripted-1", 3)


async def test_the_vector_of_one_text(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="fast", input="one", dimensions=2)
    assert [item.embedding for item in answer.data] == [[3.0, 1.0]]


async def test_models_are_the_groups(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["fast"]
    assert (await client.models.retrieve("fast")).id == "fast"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("best")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (LLMRateLimitedError("full", retry_after_seconds=61.25), openai.RateLimitError, "rate_limit_exceeded"),
        (LLMOverloadedError("down", retry_after_seconds=61.25), openai.InternalServerError, "unavailable"),
        (LLMInvalidRequestError("no"), openai.BadRequestError, None),
        (LLMContextTooLongError("long"), openai.BadRequestError, "context_length_exceeded"),
        (LLMContentBlockedError("no"), openai.BadRequestError, "content_filter"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_errors_are_the_clients_own(
    client: AsyncOpenAI,
    script: Script,
    error: LLMError,
    kind: type[openai.APIStatusError],
    code: str,
    is_streamed: bool,
) -> None:
    script.steps, script.streams = [error], [[error]]
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model="fast", messages=HELLO, stream=is_streamed)
    assert caught.value.code == code
    assert caught.value.response.headers.get("retry-after") == ("62" if error.retry_after_seconds else None)


async def test_a_budget_that_is_used_up_is_not_asked_again(client: AsyncOpenAI, script: Script) -> None:
    """Left alone, the client would ask twice more."""
    script.steps = [LLMBudgetExceededError("day", Decimal(5), None, retry_after_seconds=0.01)]
    with pytest.raises(openai.RateLimitError) as caught:
        await client.with_options(max_retries=2).chat.completions.create(model="fast", messages=HELLO)
    assert caught.value.code == "insufficient_quota"
    assert len(script.asked) == 1


async def test_what_time_mends_is_asked_again_by_the_client(client: AsyncOpenAI, script: Script) -> None:
    script.steps = [LLMOverloadedError("down", retry_after_seconds=0.01), "fine"]
    completion = await client.with_options(max_retries=2).chat.completions.create(model="fast", messages=HELLO)
    assert completion.choices[0].message.content == "fine"


async def test_an_unknown_group(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="use one of: fast") as caught:
        await client.chat.completions.create(model="best", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_timeout(client: AsyncOpenAI, script: Script) -> None:
    script.steps = [LLMTimeoutError("slow")]
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="fast", messages=HELLO)


async def test_a_stream_that_breaks_raises(client: AsyncOpenAI, script: Script) -> None:
    script.streams = [["fi", LLMOverloadedError("down")]]
    stream = await client.chat.completions.create(model="fast", messages=HELLO, stream=True)
    texts = []
    with pytest.raises(openai.APIError, match="the stream broke after 2 characters: down"):
        await collect(stream, texts)
    assert "".join(texts) == "fi"


async def collect(stream: AsyncIterator[object], texts: list[str]) -> None:
    async for chunk in stream:
        texts.append(chunk.choices[0].delta.content or "")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"extra_body": {"top_k": 3}}, "top_k"),
        ({"temperature": 3}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
    ],
)
async def test_what_would_be_left_out_in_silence_is_refused(
    client: AsyncOpenAI, script: Script, fields: dict[str, object], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**{"model": "fast", "messages": HELLO, **fields})
    assert caught.value.param in (param, "messages.0.content")
    assert script.asked == []


async def test_tokens_for_text_are_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="fast", input=[[1, 2, 3]])
    assert caught.value.param == "input.0"


async def test_a_tenant_may_have_any_name(url: str, script: Script) -> None:
    headers = {"X-Tenant-Id": "Bäckerei"}
    body = {"model": "fast", "messages": HELLO}
    async with aiohttp.ClientSession(headers=headers) as session:
        await session.post(f"{url}/v1/chat/completions", json=body)
    assert script.asked[0].tenant_id == "Bäckerei"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "half \\ud83d", "messages": []}', b"\xff"])
async def test_a_body_that_is_no_json_object(url: str, body: bytes) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_client_that_hangs_up_cancels_its_call(client: AsyncOpenAI, script: Script, is_streamed: bool) -> None:
    script.hangs, script.streams = True, [[]]
    asking = asyncio.ensure_future(client.chat.completions.create(model="fast", messages=HELLO, stream=is_streamed))
    await asyncio.wait_for(script.started.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(script.cancelled.wait(), 1)


async def test_a_client_that_stops_reading_cancels_its_stream(client: AsyncOpenAI, script: Script) -> None:
    script.hangs, script.streams = True, [["fi"]]
    stream = await client.chat.completions.create(model="fast", messages=HELLO, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await asyncio.wait_for(script.cancelled.wait(), 1)
