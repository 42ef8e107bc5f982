"""The official `anthropic` client, as it is, talks to the pool service."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import aiohttp
import anthropic
import pytest
from anthropic import AsyncAnthropic

from llm_pool.catalog import ModelGroup
from llm_pool.pool import Pool
from llm_pool.service import create_app
from llm_pool.types import ChatMessage, JsonFormat, ProviderAnswer, ProviderChunk, Tool, ToolCall, ToolCallDelta
from shared.attempts import Usage
from shared.errors import (
    LLMBudgetExceededError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitedError,
)
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app

CATALOG = build_catalog(ModelGroup("fast", (deploy("a"),), retries=0))
HELLO = {"model": "fast", "max_tokens": 7, "messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "get_weather", "description": "now", "input_schema": SCHEMA}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def url(script: Script) -> AsyncIterator[str]:
    async with serve_app(create_app(CATALOG, Pool(CATALOG, registry=build_registry({"a": script})))) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


async def test_a_message(client: AsyncAnthropic) -> None:
    message = await client.messages.create(**HELLO)
    assert [(block.type, block.text) for block in message.content] == [("text", "fine")]
    assert (message.role, message.model, message.stop_reason) == ("assistant", "scripted-1", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 2)
    assert message.id.startswith("msg_")


async def test_cached_tokens_stand_beside_the_input(client: AsyncAnthropic, script: Script) -> None:
    script.steps = [ProviderAnswer("cut", "scripted-1", "length", Usage(10, 2, 4, 3))]
    message = await client.messages.create(**HELLO)
    assert message.stop_reason == "max_tokens"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (3, 4, 3)


async def test_everything_asked_for_reaches_the_provider(client: AsyncAnthropic, script: Script) -> None:
    await client.messages.create(
        model="fast",
        max_tokens=7,
        system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "wea"}, {"type": "text", "text": "ther?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "wait"},
                    {"type": "tool_use", "id": "call-1", "name": "get_weather", "input": {"city": "Bonn"}},
                    {"type": "tool_use", "id": "call-2", "name": "get_weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call-1", "content": "rain"},
                    {"type": "tool_result", "tool_use_id": "call-2", "content": "no city", "is_error": True},
                    {"type": "text", "text": "well?"},
                ],
            },
        ],
        stop_sequences=["END"],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        metadata={"user_id": "u-1"},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
        thinking={"type": "disabled"},
        extra_body={"temperature": 0.5, "top_p": 0.25},
        extra_headers={"X-Tenant-Id": "acme", "X-Key-Id": "key-1"},
    )
    (request,) = script.asked
    calls = (ToolCall("call-1", "get_weather", '{"city": "Bonn"}'), ToolCall("call-2", "get_weather", "{}"))
    assert request.messages == (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "weather?"),
        ChatMessage("assistant", "wait", tool_calls=calls),
        ChatMessage("tool", "rain", tool_call_id="call-1"),
        ChatMessage("tool", "Error: no city", tool_call_id="call-2"),
        ChatMessage("user", "well?"),
    )
    assert (request.temperature, request.max_tokens, request.top_p, request.stop) == (0.5, 7, 0.25, ("END",))
    assert request.tools == (Tool("get_weather", "now", SCHEMA),)
    assert request.tool_choice == "get_weather"
    assert request.json_format == JsonFormat({"type": "object"})
    assert (request.user, request.tenant_id, request.key_id) == ("u-1", "acme", "key-1")


async def test_a_stream(client: AsyncAnthropic) -> None:
    stream = await client.messages.create(**HELLO, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event.delta.text for event in events if event.type == "content_block_delta"] == ["fi", "ne"]


async def test_the_helper_for_streams_puts_blocks_together(client: AsyncAnthropic, script: Script) -> None:
    script.streams = [
        [
            "one ",
            "moment",
            ProviderChunk(tool_calls=(ToolCallDelta(0, "call-1", "get_weather", '{"city": "Bo'),)),
            ProviderChunk(tool_calls=(ToolCallDelta(0, arguments='nn"}'),)),
            ProviderChunk(tool_calls=(ToolCallDelta(1, "call-2", "get_weather", '{"city": "Ulm"}'),)),
            ProviderChunk(finish_reason="tool_calls", usage=Usage(3, 2)),
        ]
    ]
    async with client.messages.stream(**HELLO, tools=[WEATHER]) as stream:
        message = await stream.get_final_message()
    text, first, second = message.content
    assert (text.type, text.text) == ("text", "one moment")
    assert (first.type, first.id, first.input) == ("tool_use", "call-1", {"city": "Bonn"})
    assert (second.type, second.id, second.input) == ("tool_use", "call-2", {"city": "Ulm"})
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 3, 2)


async def test_a_tool_call(client: AsyncAnthropic, script: Script) -> None:
    calls = (ToolCall("call-1", "get_weather", '{"city": "Bonn"}'), ToolCall("call-2", "get_weather", "Ulm"))
    script.steps = [ProviderAnswer("", "scripted-1", "tool_calls", Usage(3, 2), calls)]
    message = await client.messages.create(**HELLO, tools=[WEATHER])
    assert [(block.type, block.id, block.input) for block in message.content] == [
        ("tool_use", "call-1", {"city": "Bonn"}),
        ("tool_use", "call-2", {"INVALID_JSON": "Ulm"}),
    ]
    assert message.stop_reason == "tool_use"


SIGNED = ToolCall("call-1", "get_weather", "{}", '{"google": {"thought_signature": "AY89"}}')


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_what_a_provider_signed_comes_back_with_the_call(
    client: AsyncAnthropic, script: Script, is_streamed: bool
) -> None:
    delta = ToolCallDelta(0, SIGNED.id, SIGNED.name, SIGNED.arguments, SIGNED.provider_data)
    script.steps = [ProviderAnswer("", "scripted-1", "tool_calls", tool_calls=(SIGNED,)), "rain"]
    script.streams = [[ProviderChunk(tool_calls=(delta,), finish_reason="tool_calls")]]
    if is_streamed:
        async with client.messages.stream(**HELLO, tools=[WEATHER]) as stream:
            said = await stream.get_final_message()
        script.steps = ["rain"]
    else:
        said = await client.messages.create(**HELLO, tools=[WEATHER])
    result = {"type": "tool_result", "tool_use_id": "call-1", "content": "rain"}
    talk = [*HELLO["messages"], {"role": "assistant", "content": said.content}, {"role": "user", "content": [result]}]
    await client.messages.create(**{**HELLO, "messages": talk}, tools=[WEATHER])
    assert script.asked[1].messages[1].tool_calls == (SIGNED,)


async def test_counting_tokens(client: AsyncAnthropic) -> None:
    messages = [{"role": "user", "content": "hello " * 100}]
    count = await client.messages.count_tokens(model="fast", system="be brief", messages=messages, tools=[WEATHER])
    assert 50 < count.input_tokens < 900


async def test_models_are_the_groups(client: AsyncAnthropic) -> None:
    assert [model.id async for model in client.models.list()] == ["fast"]
    assert (await client.models.retrieve("fast")).display_name == "fast"
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("best")


@pytest.mark.parametrize(
    ("error", "kind", "type_"),
    [
        (LLMRateLimitedError("full", retry_after_seconds=61.25), anthropic.RateLimitError, "rate_limit_error"),
        (LLMOverloadedError("down", retry_after_seconds=61.25), anthropic.InternalServerError, "overloaded_error"),
        (LLMInvalidRequestError("no"), anthropic.BadRequestError, "invalid_request_error"),
        (LLMContextTooLongError("long"), anthropic.APIStatusError, "request_too_large"),
        (LLMContentBlockedError("no"), anthropic.BadRequestError, "invalid_request_error"),
        (LLMBudgetExceededError("day", Decimal(5), None), anthropic.APIStatusError, "billing_error"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_errors_are_the_clients_own(
    client: AsyncAnthropic,
    script: Script,
    error: LLMError,
    kind: type[anthropic.APIStatusError],
    type_: str,
    is_streamed: bool,
) -> None:
    script.steps, script.streams = [error], [[error]]
    with pytest.raises(kind) as caught:
        await client.messages.create(**HELLO, stream=is_streamed)
    assert caught.value.body["error"]["type"] == type_
    assert caught.value.response.headers.get("retry-after") == ("62" if error.retry_after_seconds else None)


async def test_an_unknown_group(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="use one of: fast"):
        await client.messages.create(**{**HELLO, "model": "best"})


async def test_a_stream_that_breaks_raises(client: AsyncAnthropic, script: Script) -> None:
    script.streams = [["fi", LLMOverloadedError("down")]]
    texts: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="the stream broke after 2 characters: down"):
        await collect(await client.messages.create(**HELLO, stream=True), texts)
    assert texts == ["fi"]


async def collect(stream: AsyncIterator[object], texts: list[str]) -> None:
    async for event in stream:
        if event.type == "content_block_delta":
            texts.append(event.delta.text)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"top_k": 3}, "top_k"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, "disable_parallel_tool_use"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages.0.content"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"bogus": 1}, "bogus"),
    ],
)
async def test_what_would_be_left_out_in_silence_is_refused(
    client: AsyncAnthropic, script: Script, fields: dict[str, object], field: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=field):
        await client.messages.create(**HELLO, extra_body=fields)
    assert script.asked == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
async def test_a_body_that_is_no_json_object(url: str, body: bytes) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/messages", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_client_that_hangs_up_cancels_its_call(
    client: AsyncAnthropic, script: Script, is_streamed: bool
) -> None:
    script.hangs, script.streams = True, [[]]
    asking = asyncio.ensure_future(client.messages.create(**HELLO, stream=is_streamed))
    await asyncio.wait_for(script.started.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(script.cancelled.wait(), 1)
