"""What Anthropic's dialect adds to the common suites: its turns, tools, JSON, counting, errors."""

import json
from typing import Any

import pytest

from llm_pool.types import ChatMessage, CompletionRequest, JsonFormat, StreamChunk, Tool, ToolCall, ToolCallDelta
from shared import errors
from shared.attempts import Usage
from tests.contracts.served import ask, fail, fail_stream, opened, read, sent
from tests.fakes.dialects import ANTHROPIC, named_event_of, start_anthropic
from tests.fakes.provider_server import send_json, send_stream

MESSAGES = (
    ChatMessage("system", "be brief"),
    ChatMessage("user", "hello"),
    ChatMessage("assistant", "hi"),
    ChatMessage("system", "and kind"),
    ChatMessage("user", "bye"),
)
OPEN = {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}}
CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
WEATHER = Tool("get_weather", "the weather of a place", OPEN)


def talk(*messages: ChatMessage, **fields: Any) -> CompletionRequest:
    return CompletionRequest("fast", messages or MESSAGES[1:2], **fields)


def error_of(kind: str, **fields: object) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": "as people read it", **fields}}


@pytest.mark.parametrize(
    ("status", "document", "error_class"),
    [
        (400, error_of("invalid_request_error"), errors.LLMInvalidRequestError),
        (401, error_of("authentication_error"), errors.LLMAuthenticationError),
        (402, error_of("billing_error"), errors.LLMQuotaExhaustedError),
        (403, error_of("permission_error"), errors.LLMAuthenticationError),
        (404, error_of("not_found_error"), errors.LLMModelNotFoundError),
        (413, error_of("request_too_large"), errors.LLMContextTooLongError),
        (429, error_of("rate_limit_error"), errors.LLMRateLimitedError),
        (
            429,
            error_of("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            errors.LLMQuotaExhaustedError,
        ),
        (504, error_of("timeout_error"), errors.LLMOverloadedError),
        (529, error_of("overloaded_error"), errors.LLMOverloadedError),
        (200, error_of("overloaded_error"), errors.LLMOverloadedError),
        (200, error_of("rate_limit_error"), errors.LLMRateLimitedError),
        (200, error_of("unheard_of"), errors.LLMBrokenAnswerError),
    ],
)
async def test_errors_by_their_type(status: int, document: object, error_class: type[Exception]) -> None:
    assert type(await fail(ANTHROPIC, send_json(document, status))) is error_class
    assert type(await fail_stream(ANTHROPIC, send_json(document, status))) is error_class


async def test_an_error_event_without_its_type_is_one_all_the_same() -> None:
    events = [named_event_of({"error": {"type": "overloaded_error", "message": "x"}})]
    assert type(await fail_stream(ANTHROPIC, send_stream(ANTHROPIC, events))) is errors.LLMOverloadedError


async def test_system_stands_apart_and_there_is_always_a_bound() -> None:
    body = await sent(ANTHROPIC, talk(*MESSAGES))
    assert body["system"] == "be brief\n\nand kind"
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["max_tokens"] == 4096
    assert (await sent(ANTHROPIC, options={"max_tokens": 50}))["max_tokens"] == 50
    body = await sent(ANTHROPIC, talk(max_tokens=9), options={"max_tokens": 50})
    assert body["max_tokens"] == 9
    assert "system" not in body


async def test_the_fields_of_a_request() -> None:
    request = talk(
        ChatMessage("user", "hello", name="ann"), top_p=0.9, stop=("END",), user="u1", metadata={"kept": "here"}
    )
    assert await sent(ANTHROPIC, request, options={"thinking": {"type": "adaptive"}}) == {
        "model": "model-as-configured",
        "thinking": {"type": "adaptive"},
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4096,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
    }


async def test_one_of_temperature_and_top_p_and_no_more_than_it_takes() -> None:
    body = await sent(ANTHROPIC, talk(temperature=1.5, top_p=0.9))
    assert (body["temperature"], "top_p" in body) == (1.0, False)


async def test_answers_of_tools_are_one_turn_of_the_user() -> None:
    calls = (ToolCall("a", "get_time", '{"x": 1}'), ToolCall("b", "get_time", "no JSON"))
    body = await sent(
        ANTHROPIC,
        talk(
            ChatMessage("user", "when?"),
            ChatMessage("assistant", "let me see", tool_calls=calls),
            ChatMessage("tool", "noon", tool_call_id="a"),
            ChatMessage("tool", "one", tool_call_id="b"),
            ChatMessage("assistant", "", tool_calls=calls[:1]),
            ChatMessage("tool", "two", tool_call_id="a"),
        ),
    )
    first = {"type": "tool_use", "id": "a", "name": "get_time", "input": {"x": 1}}
    second = {"type": "tool_use", "id": "b", "name": "get_time", "input": {"arguments": "no JSON"}}
    assert body["messages"] == [
        {"role": "user", "content": "when?"},
        {"role": "assistant", "content": [{"type": "text", "text": "let me see"}, first, second]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "noon"},
                {"type": "tool_result", "tool_use_id": "b", "content": "one"},
            ],
        },
        {"role": "assistant", "content": [first]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "two"}]},
    ]


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("get_weather", {"type": "tool", "name": "get_weather"}),
    ],
)
async def test_tools_as_they_are_offered(choice: str, written: object) -> None:
    body = await sent(ANTHROPIC, talk(tools=(WEATHER,), tool_choice=choice))
    assert body["tools"] == [{"name": "get_weather", "description": "the weather of a place", "input_schema": OPEN}]
    assert body["tool_choice"] == written


async def test_strict_tools_are_marked() -> None:
    body = await sent(ANTHROPIC, talk(tools=(Tool("a", "b", CLOSED, strict=True),)))
    assert body["tools"][0]["strict"] is True


async def test_tools_that_the_model_calls() -> None:
    answer = ANTHROPIC.answer("let me see", "tool_use")
    answer["content"].append({"type": "tool_use", "id": "a", "name": "get_time", "input": {"x": 1}})
    async with opened(ANTHROPIC) as (provider, server):
        server.behave = send_json(answer)
        answered = await ask(provider)
    assert answered.tool_calls == (ToolCall("a", "get_time", '{"x": 1}'),)
    assert (answered.finish_reason, answered.content) == ("tool_calls", "let me see")


def block(index: int, name: str) -> list[bytes]:
    start = {"type": "tool_use", "id": f"id-{name}", "name": name, "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"x"', ": 1}")]
    events: list[dict[str, Any]] = [{"type": "content_block_start", "index": index, "content_block": start}]
    events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [named_event_of(event) for event in events]


async def test_tool_calls_in_pieces_are_counted_without_the_blocks_of_text() -> None:
    received: list[StreamChunk] = []
    async with opened(ANTHROPIC) as (provider, server):
        pieces = [*ANTHROPIC.pieces(["hm"]), *block(1, "one"), *block(2, "two"), *ANTHROPIC.ending("tool_use")]
        server.behave = send_stream(ANTHROPIC, pieces)
        answer = await read(provider, received)
    assert answer.tool_calls == (ToolCall("id-one", "one", '{"x": 1}'), ToolCall("id-two", "two", '{"x": 1}'))
    assert (answer.content, answer.finish_reason) == ("hm", "tool_calls")
    assert received[1].tool_calls == (ToolCallDelta(0, "id-one", "one"),)


async def test_json_by_its_own_field_where_the_shape_can_be_enforced() -> None:
    body = await sent(ANTHROPIC, talk(json_format=JsonFormat(OPEN)), options={"output_config": {"effort": "low"}})
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": CLOSED}}
    assert "system" not in body


@pytest.mark.parametrize("schema", [None, {"type": "object", "additionalProperties": {"type": "number"}}])
async def test_json_in_words_where_it_cannot(schema: dict[str, object] | None) -> None:
    body = await sent(ANTHROPIC, talk(*MESSAGES, json_format=JsonFormat(schema)))
    assert "output_config" not in body
    assert body["system"].startswith("be brief\n\nand kind\n\nAnswer with")
    assert schema is None or json.dumps(schema) in body["system"]


async def test_what_its_prompt_cache_read_and_wrote_is_part_of_the_prompt() -> None:
    async with opened(ANTHROPIC) as (provider, server):
        answer = ANTHROPIC.answer("fine", "end_turn")
        answer["usage"] |= {"cache_read_input_tokens": 100, "cache_creation_input_tokens": 30}
        server.behave = send_json(answer)
        assert (await ask(provider)).usage == Usage(141, 5, 100, 30)
        assert server.received[0].headers["anthropic-version"] == "2023-06-01"


async def test_a_refusal_blocks_and_after_the_first_token_it_ends() -> None:
    assert type(await fail(ANTHROPIC, send_json(ANTHROPIC.answer("", "refusal")))) is errors.LLMContentBlockedError
    silent = send_stream(ANTHROPIC, ANTHROPIC.stream(finish_reason="refusal"))
    assert type(await fail_stream(ANTHROPIC, silent)) is errors.LLMContentBlockedError
    async with opened(ANTHROPIC) as (provider, server):
        server.behave = send_stream(ANTHROPIC, ANTHROPIC.stream("fi", finish_reason="refusal"))
        assert (await read(provider)).finish_reason == "content_filter"


async def test_a_stop_reason_without_the_message_stop_was_cut_off() -> None:
    error = await fail_stream(ANTHROPIC, send_stream(ANTHROPIC, ANTHROPIC.stream("fi")[:-1]))
    assert type(error) is errors.LLMStreamBrokenError
    assert type(error.__cause__) is errors.LLMBrokenAnswerError


async def test_thinking_is_not_handed_on() -> None:
    thinking = [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "x"}]
    deltas = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in thinking]
    events = [named_event_of(event) for event in (start_anthropic(), *deltas)]
    async with opened(ANTHROPIC) as (provider, server):
        server.behave = send_stream(ANTHROPIC, [*events, *ANTHROPIC.stream("fine")])
        assert (await read(provider)).content == "fine"


async def test_tokens_are_counted_by_the_provider() -> None:
    async with opened(ANTHROPIC) as (provider, server):
        server.behave = send_json({"input_tokens": 42})
        request = talk(*MESSAGES, tools=(WEATHER,), max_tokens=9, temperature=0.5, stop=("END",), user="u1")
        assert await provider.count_tokens(request, 5) == 42
    assert server.received[0].path == "/v1/messages/count_tokens"
    assert set(server.received[0].body) == {"model", "messages", "system", "tools", "tool_choice"}


async def test_what_counts_nothing_is_a_broken_answer() -> None:
    async with opened(ANTHROPIC) as (provider, server):
        server.behave = send_json({"input_tokens": "many"})
        with pytest.raises(errors.LLMBrokenAnswerError):
            await provider.count_tokens(talk(), 5)
