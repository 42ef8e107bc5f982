"""Tools in OpenAI's dialect: how they are offered, and how their calls come back, whole or in pieces."""

import json
from typing import Any

import pytest

from llm_pool.types import ChatMessage, CompletionRequest, StreamChunk, Tool, ToolCall, ToolCallDelta
from tests.contracts.served import ask, opened, read, sent
from tests.fakes.dialects import OPENAI, chunk_openai, event_of
from tests.fakes.provider_server import send_json, send_stream

PLACE = {"type": "object", "properties": {"a": {"type": "string"}}}
WEATHER = Tool("get_weather", "the weather of a place", PLACE, strict=True)
TIME = Tool("get_time", "the time of a place", PLACE)


def talk(**fields: Any) -> CompletionRequest:
    return CompletionRequest("fast", (ChatMessage("user", "hello"),), **fields)


async def test_tools_as_they_are_offered() -> None:
    function = {"name": "get_weather", "description": "the weather of a place", "parameters": PLACE}
    body = await sent(OPENAI, talk(tools=(WEATHER,)), provider="openai")
    assert body["tools"] == [{"type": "function", "function": {**function, "strict": True}}]
    assert body["tool_choice"] == "auto"
    body = await sent(OPENAI, talk(tools=(WEATHER,), tool_choice="required"))
    assert (body["tools"][0]["function"], body["tool_choice"]) == (function, "required")


async def test_one_tool_by_its_name() -> None:
    request = talk(tools=(WEATHER, TIME), tool_choice="get_time")
    body = await sent(OPENAI, request)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "get_time"}}
    assert len(body["tools"]) == 2
    body = await sent(OPENAI, request, provider="lmstudio")
    assert body["tool_choice"] == "required"
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_time"]


@pytest.mark.parametrize("finish_reason", ["tool_calls", "stop"])
async def test_tools_that_the_model_calls(finish_reason: str) -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "get_time", "arguments": '{"a": 1}'}}]
    answer = OPENAI.answer("", finish_reason)
    answer["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": calls}
    async with opened(OPENAI) as (provider, server):
        server.behave = send_json(answer)
        answered = await ask(provider)
    assert answered.tool_calls == (ToolCall("a", "get_time", '{"a": 1}'),)
    assert (answered.finish_reason, answered.content) == ("tool_calls", "")


def piece(index: int | None, id_: str | None = None, name: str | None = None, arguments: str = "") -> bytes:
    fields: dict[str, object] = {"function": {"name": name, "arguments": arguments}}
    if index is not None:
        fields["index"] = index
    if id_ is not None:
        fields["id"] = id_
    return event_of(chunk_openai({"tool_calls": [fields]}))


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "one"), piece(0, arguments='{"x"'), piece(0, arguments=": 1}"), piece(1, "b", "two", "{}")],
        [piece(0, "a", "one", '{"x"'), piece(0, "a", arguments=": 1}"), piece(1, "b", "two", "{}")],
        [piece(None, "a", "one", '{"x"'), piece(None, arguments=": 1}"), piece(None, "b", "two", "{}")],
        [piece(0, "a", "one", '{"x": 1}'), piece(0, "b", "two", "{}")],
    ],
    ids=["as OpenAI does", "id each time", "no index, as Gemini does", "always index 0"],
)
async def test_tool_calls_in_pieces(pieces: list[bytes]) -> None:
    received: list[StreamChunk] = []
    async with opened(OPENAI) as (provider, server):
        server.behave = send_stream(OPENAI, [*pieces, *OPENAI.ending("stop")])
        answer = await read(provider, received)
    assert answer.tool_calls == (ToolCall("a", "one", '{"x": 1}'), ToolCall("b", "two", "{}"))
    assert answer.finish_reason == "tool_calls"
    assert received[0].tool_calls[0].id == "a"


async def test_a_tool_call_without_an_id_is_given_one() -> None:
    received: list[StreamChunk] = []
    async with opened(OPENAI) as (provider, server):
        server.behave = send_stream(OPENAI, [piece(0, None, "one", "{}"), *OPENAI.ending("tool_calls")])
        answer = await read(provider, received)
    assert answer.tool_calls == (ToolCall("call_0", "one", "{}"),)
    assert received[0].tool_calls == (ToolCallDelta(0, "call_0", "one", "{}"),)


SIGNATURE = {"google": {"thought_signature": "AY89a18IwQs="}}
SIGNED = {
    "id": "a",
    "type": "function",
    "function": {"name": "get_time", "arguments": "{}"},
    "extra_content": SIGNATURE,
}


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_gemini_is_given_back_what_it_signed(is_streamed: bool) -> None:
    """Without it the next request is refused with HTTP 400."""
    answer = OPENAI.answer("", "tool_calls")
    answer["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [SIGNED]}
    events = [event_of(chunk_openai({"tool_calls": [{"index": 0, **SIGNED}]})), *OPENAI.ending("stop")]
    async with opened(OPENAI, provider="gemini") as (provider, server):
        server.behave = send_stream(OPENAI, events) if is_streamed else send_json(answer)
        said = await (read if is_streamed else ask)(provider)
        assert [call.id for call in said.tool_calls] == ["a"]
        server.behave = send_json(OPENAI.answer("noon", "stop"))
        await ask(provider, messages=(ChatMessage("assistant", tool_calls=said.tool_calls),))
    assert server.received[1].body["messages"][0]["tool_calls"] == [SIGNED]


@pytest.mark.parametrize(("provider", "is_sent"), [("gemini", True), ("openai_compatible", True), ("openai", False)])
async def test_who_knows_no_signatures_is_sent_none(provider: str, is_sent: bool) -> None:
    call = ToolCall("a", "get_time", "{}", json.dumps(SIGNATURE))
    messages = (ChatMessage("assistant", tool_calls=(call,)), ChatMessage("tool", "noon", tool_call_id="a"))
    body = await sent(OPENAI, CompletionRequest("fast", messages), provider=provider)
    assert body["messages"][0]["tool_calls"][0].get("extra_content") == (SIGNATURE if is_sent else None)
