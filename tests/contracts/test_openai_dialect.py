"""What OpenAI's dialect adds to the common suites: its fields, JSON, filters, streams, and who deviates how."""

from typing import Any

import pytest

from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    JsonFormat,
    ToolCall,
)
from shared import errors
from shared.attempts import Usage
from tests.contracts.served import REQUEST, ask, fail, fail_stream, opened, read, sent
from tests.fakes.dialects import OPENAI, chunk_openai, event_of
from tests.fakes.provider_server import send_json, send_stream

QUESTION = (ChatMessage("user", "hello"),)
CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}


def talk(*messages: ChatMessage, **fields: Any) -> CompletionRequest:
    return CompletionRequest("fast", messages or QUESTION, **fields)


async def test_what_was_withheld_is_blocked_whole_or_streamed() -> None:
    refused = OPENAI.answer("", "stop")
    refused["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    for answer in (OPENAI.answer("", "content_filter"), refused):
        assert type(await fail(OPENAI, send_json(answer))) is errors.LLMContentBlockedError
    refusal = [event_of(chunk_openai({"refusal": "I cannot"})), event_of(chunk_openai({}, "stop"))]
    for events in (OPENAI.stream(finish_reason="content_filter"), refusal):
        assert type(await fail_stream(OPENAI, send_stream(OPENAI, events))) is errors.LLMContentBlockedError


async def test_a_filter_that_cuts_off_what_was_read_already_is_told_as_the_end() -> None:
    async with opened(OPENAI) as (provider, server):
        server.behave = send_stream(OPENAI, OPENAI.stream("fi", finish_reason="content_filter"))
        answer = await read(provider)
    assert (answer.content, answer.finish_reason) == ("fi", "content_filter")


async def test_no_content_is_no_answer() -> None:
    answer = OPENAI.answer("", "stop")
    answer["choices"][0]["message"]["content"] = None
    assert type(await fail(OPENAI, send_json(answer))) is errors.LLMBrokenAnswerError


async def test_an_answer_without_usage_or_model_is_an_answer() -> None:
    async with opened(OPENAI, model="m") as (provider, server):
        answer = OPENAI.answer("fine", "stop")
        del answer["usage"], answer["model"]
        server.behave = send_json(answer)
        answered = await ask(provider)
    assert (answered.content, answered.usage, answered.model) == ("fine", None, "m")


@pytest.mark.parametrize("usage", ["many", {"prompt_tokens": "11"}, {"prompt_tokens": -1}, {"prompt_tokens": 10**12}])
async def test_a_bill_that_cannot_be_read_does_not_cost_the_answer(usage: object) -> None:
    async with opened(OPENAI) as (provider, server):
        server.behave = send_json({**OPENAI.answer("fine", "stop"), "usage": usage})
        answered = await ask(provider)
    assert (answered.content, answered.usage) == ("fine", None)


async def test_what_came_from_the_prompt_cache_is_counted() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 64}}
    async with opened(OPENAI) as (provider, server):
        server.behave = send_json({**OPENAI.answer("fine", "stop"), "usage": usage})
        assert (await ask(provider)).usage == Usage(100, 5, 64)


async def test_the_fields_of_a_request() -> None:
    conversation = (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "hello", name="ann"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("call-1", "get_time", "{}"),)),
        ChatMessage("tool", "noon", tool_call_id="call-1"),
    )
    request = talk(
        *conversation, max_tokens=9, temperature=0.5, top_p=0.9, stop=("END",), user="u1", metadata={"kept": "here"}
    )
    body = await sent(OPENAI, request, options={"reasoning_effort": "low", "temperature": 0.1})
    assert body == {
        "model": "model-as-configured",
        "reasoning_effort": "low",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hello", "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call-1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "content": "noon", "tool_call_id": "call-1"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "user": "u1",
    }


async def test_quirks_of_those_who_speak_it() -> None:
    request = talk(ChatMessage("user", "hello", name="ann"), max_tokens=9, user="u1")
    openai, groq = await sent(OPENAI, request, provider="openai"), await sent(OPENAI, request, provider="groq")
    assert ("max_tokens" in openai, openai["max_completion_tokens"], openai["user"]) == (False, 9, "u1")
    assert "name" not in groq["messages"][0]
    assert "user" not in await sent(OPENAI, request, provider="gemini")


@pytest.mark.parametrize(
    ("provider", "wanted", "sent_format"),
    [
        ("openai", JsonFormat(), {"type": "json_object"}),
        (
            "openai",
            JsonFormat(CLOSED, "shape"),
            {"type": "json_schema", "json_schema": {"name": "shape", "schema": CLOSED, "strict": True}},
        ),
        ("openai", JsonFormat(OPEN), {"type": "json_schema", "json_schema": {"name": "answer", "schema": OPEN}}),
        ("vllm", JsonFormat(CLOSED), {"type": "json_schema", "json_schema": {"name": "answer", "schema": CLOSED}}),
        ("llamacpp", JsonFormat(OPEN), {"type": "json_object", "schema": OPEN}),
        ("llamacpp", JsonFormat(), {"type": "json_object"}),
        (
            "lmstudio",
            JsonFormat(),
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        ),
        ("mlx_server", JsonFormat(OPEN), None),
    ],
)
async def test_how_json_is_asked_for(provider: str, wanted: JsonFormat, sent_format: object) -> None:
    body = await sent(OPENAI, talk(json_format=wanted), provider=provider)
    assert body.get("response_format") == sent_format


async def test_only_some_are_asked_to_count_a_stream() -> None:
    for name, options in {"openai": {"include_usage": True}, "openrouter": None}.items():
        async with opened(OPENAI, provider=name) as (provider, server):
            await read(provider)
            assert server.received[0].body.get("stream_options") == options


async def test_comments_empty_choices_and_a_missing_done_are_fine() -> None:
    events = [b": OPENROUTER PROCESSING\n\n", event_of({"choices": [], "prompt_filter_results": []})]
    events += OPENAI.stream("fi", "ne")[:-1]
    async with opened(OPENAI) as (provider, server):
        server.behave = send_stream(OPENAI, events)
        answer = await read(provider)
    assert (answer.content, answer.usage) == ("fine", Usage(11, 5))


async def test_done_without_a_finish_reason_was_cut_off() -> None:
    error = await fail_stream(OPENAI, send_stream(OPENAI, [*OPENAI.pieces(["fi"]), b"data: [DONE]\n\n"]))
    assert type(error) is errors.LLMStreamBrokenError
    assert type(error.__cause__) is errors.LLMBrokenAnswerError


async def test_of_several_answers_in_a_stream_the_first_is_read() -> None:
    other = chunk_openai({"content": "other"})
    other["choices"][0]["index"] = 1
    async with opened(OPENAI) as (provider, server):
        server.behave = send_stream(OPENAI, [event_of(other), *OPENAI.stream("fine")])
        assert (await read(provider)).content == "fine"


async def test_a_server_needs_no_key() -> None:
    async with opened(OPENAI, api_key=None) as (provider, server):
        await provider.complete(REQUEST, 5)
    assert "Authorization" not in server.received[0].headers
