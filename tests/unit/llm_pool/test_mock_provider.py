"""The mock says that it is one, plays every fault on demand, and fills in whatever shape is wanted."""

import json
from pathlib import Path

import pytest

from llm_pool.asks import ask_stream
from llm_pool.catalog import Deployment, ModelGroup
from llm_pool.pool import Pool
from llm_pool.providers.http import Connections
from llm_pool.providers.mock import FAULTS, MockProvider, create_mock
from llm_pool.providers.mock_answers import build_example
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    EmbeddingRequest,
    JsonFormat,
    ProviderAnswer,
    StreamChunk,
    Tool,
    ToolCall,
)
from shared import errors
from shared.attempts import Usage
from tests.fakes.scripted_provider import ask, build_catalog

WEATHER = Tool(
    "get_weather",
    "the weather of a place",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIME = Tool("get_time", "the time", {"type": "object", "properties": {}})


def deploy(**options: object) -> Deployment:
    return Deployment("mock", "mock", "mock", options=options)


def build_pool(**options: object) -> Pool:
    return Pool(build_catalog(ModelGroup("fast", (deploy(**options),), retries=0)))


def build_provider(**options: object) -> MockProvider:
    return create_mock(deploy(**options), Connections())


def talk(*messages: ChatMessage, **fields: object) -> CompletionRequest:
    return CompletionRequest("fast", messages or (ChatMessage("user", "hello there"),), **fields)


async def stream(provider: MockProvider, request: CompletionRequest) -> tuple[ProviderAnswer, list[StreamChunk]]:
    pieces: list[StreamChunk] = []
    return await ask_stream(request, pieces.append, provider, deploy(), 5.0), pieces


async def test_it_echoes_the_last_message_and_counts_words() -> None:
    response = await build_pool().complete(ask("fast", "first", "second words"))
    assert response.content == "[mock answer] second words"
    assert response.usage == Usage(3, 4)


async def test_it_follows_a_script_in_turn() -> None:
    pool = build_pool(answers=["one", "two"])
    answers = [(await pool.complete(ask())).content for _ in range(3)]
    assert answers == ["[mock answer] one", "[mock answer] two", "[mock answer] one"]


async def test_a_file_switches_an_outage_on_and_off(tmp_path: Path) -> None:
    switch = tmp_path / "outage"
    pool = build_pool(fail_while_exists=str(switch))
    await pool.complete(ask())
    switch.touch()
    with pytest.raises(errors.LLMUnavailableError) as caught:
        await pool.complete(ask())
    assert caught.value.attempts[0].error_type == "LLMOverloadedError"
    switch.unlink()
    await pool.complete(ask())


async def test_it_is_healthy_unless_an_outage_is_played(tmp_path: Path) -> None:
    provider = build_provider(fail_while_exists=str(tmp_path / "outage"))
    assert await provider.is_healthy(1)
    (tmp_path / "outage").touch()
    assert not await provider.is_healthy(1)


async def test_it_may_think_for_too_long() -> None:
    with pytest.raises((errors.LLMTimeoutError, errors.LLMUnavailableError)) as caught:
        await build_pool(delay_seconds=5).complete(ask(timeout_seconds=0.05))
    assert caught.value.attempts[0].error_type == "LLMTimeoutError"


async def test_a_stream_comes_word_by_word_and_is_the_whole_answer() -> None:
    answer, pieces = await stream(build_provider(), talk())
    assert [piece.delta for piece in pieces] == ["[mock ", "answer] ", "hello ", "there"]
    assert answer == await build_provider().complete(talk(), 5)


async def test_a_stream_may_pause_between_its_words() -> None:
    provider = build_provider(piece_delay_seconds=0.05)
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await ask_stream(talk(), lambda _: None, provider, Deployment("m", "mock", "m", timeout_seconds=0.02), 1.0)
    assert caught.value.partial_text == "[mock "


async def test_tokens_are_words() -> None:
    assert (
        await build_provider().count_tokens(talk(ChatMessage("system", "be brief"), ChatMessage("user", "a b c")), 1)
        == 5
    )


async def test_json_says_that_it_is_mock() -> None:
    answer = await build_provider().complete(talk(json_format=JsonFormat()), 5)
    assert json.loads(answer.content) == {"mock": True, "answer": "hello there"}


async def test_scripted_json_is_given_as_it_stands() -> None:
    answer = await build_provider(answers=['{"a": 1}']).complete(talk(json_format=JsonFormat()), 5)
    assert answer.content == '{"a": 1}'


PERSON = {
    "type": "object",
    "required": ["name", "age", "tags", "kind", "born", "home"],
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 18},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "kind": {"enum": ["cat", "dog"]},
        "born": {"type": "string", "format": "date"},
        "home": {"$ref": "#/$defs/home"},
        "left_out": {"type": "boolean"},
    },
    "$defs": {"home": {"type": "object", "properties": {"at": {"anyOf": [{"type": "number"}, {"type": "null"}]}}}},
}


async def test_json_fits_the_schema() -> None:
    answer = await build_provider().complete(talk(json_format=JsonFormat(PERSON)), 5)
    assert json.loads(answer.content) == {
        "name": "[moc",
        "age": 18,
        "tags": ["[mock answer]", "[mock answer]"],
        "kind": "cat",
        "born": "2026-01-01",
        "home": {"at": 0},
    }


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"const": 5}, 5),
        ({"type": ["null", "string"]}, None),
        ({"type": "boolean"}, True),
        ({"type": "number", "exclusiveMinimum": 1}, 2),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "string", "minLength": 15}, "[mock answer].."),
        ({"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"required": ["a"]}]}, {"a": None}),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, 0),
        ({}, "[mock answer]"),
        ({"type": "string", "examples": ["such"]}, "such"),
    ],
)
def test_an_example_of_a_schema(schema: dict[str, object], example: object) -> None:
    assert build_example(schema) == example


@pytest.mark.parametrize("held", [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}, {"anyOf": [{"$ref": "#"}]}])
def test_a_schema_that_holds_itself_comes_to_an_end(held: dict[str, object]) -> None:
    document = build_example({"type": "object", "properties": {"held": held}})
    assert "held" in str(document["held"])


async def test_a_tool_that_must_be_called_is_called_with_fitting_arguments() -> None:
    request = talk(tools=(TIME, WEATHER), tool_choice="get_weather")
    answer = await build_provider().complete(request, 5)
    assert answer.finish_reason == "tool_calls"
    assert answer.tool_calls == (ToolCall("mock_call_0", "get_weather", '{"city": "[mock answer]"}'),)
    assert answer.content == ""


@pytest.mark.parametrize(
    ("choice", "called"), [("auto", []), ("none", []), ("required", ["get_time"]), ("get_weather", ["get_weather"])]
)
async def test_without_a_script_only_a_tool_that_must_be_called_is(choice: str, called: list[str]) -> None:
    answer = await build_provider().complete(talk(tools=(TIME, WEATHER), tool_choice=choice), 5)
    assert [call.name for call in answer.tool_calls] == called


SCRIPTED = [{"name": "get_weather", "arguments": {"city": "Kyoto"}}, {"name": "get_time"}]


async def test_scripted_tool_calls_are_made_until_a_tool_has_answered() -> None:
    provider = build_provider(tool_calls=SCRIPTED)
    first = await provider.complete(talk(tools=(TIME, WEATHER)), 5)
    assert [(call.name, call.arguments) for call in first.tool_calls] == [
        ("get_weather", '{"city": "Kyoto"}'),
        ("get_time", "{}"),
    ]
    answered = talk(ChatMessage("tool", "rain", tool_call_id="mock_call_0"), tools=(TIME, WEATHER))
    assert (await provider.complete(answered, 5)).content == "[mock answer] rain"


async def test_a_streamed_tool_call_is_the_same_as_a_whole_one() -> None:
    request = talk(tools=(TIME, WEATHER))
    answer, _ = await stream(build_provider(tool_calls=SCRIPTED), request)
    assert answer == await build_provider(tool_calls=SCRIPTED).complete(request, 5)


async def test_vectors_are_the_same_for_the_same_text_and_near_for_a_similar_one() -> None:
    texts = ("the cat sat", "the cat sat", "the cat ran", "stock prices fell")
    answer = await build_provider().embed(EmbeddingRequest("fast", texts, dimensions=64), 5)
    first, same, near, far = answer.vectors
    assert first == same
    assert multiply(first, near) > multiply(first, far) + 0.2
    assert {len(vector) for vector in answer.vectors} == {64}
    assert multiply(first, first) == pytest.approx(1.0)


def multiply(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_the_length_of_vectors_is_an_option() -> None:
    answer = await build_provider(dimensions=5).embed(EmbeddingRequest("fast", ("", "x")), 5)
    assert [len(vector) for vector in answer.vectors] == [5, 5]


RAISED = {
    "rate_limited": errors.LLMRateLimitedError,
    "overloaded": errors.LLMOverloadedError,
    "timeout": errors.LLMTimeoutError,
    "hang": errors.LLMTimeoutError,
    "connection": errors.LLMConnectionError,
    "broken_answer": errors.LLMBrokenAnswerError,
    "cut_off": errors.LLMBrokenAnswerError,
    "authentication": errors.LLMAuthenticationError,
    "quota_exhausted": errors.LLMQuotaExhaustedError,
    "model_not_found": errors.LLMModelNotFoundError,
    "too_long": errors.LLMContextTooLongError,
    "blocked": errors.LLMContentBlockedError,
    "invalid_request": errors.LLMInvalidRequestError,
    529: errors.LLMOverloadedError,
    429: errors.LLMRateLimitedError,
}


def test_every_fault_is_tried_here() -> None:
    assert set(FAULTS) == {name for name in RAISED if isinstance(name, str)} | {"none", "broken_json"}


@pytest.mark.parametrize("fault", RAISED)
async def test_a_fault_fails_one_call(fault: str | int) -> None:
    provider = build_provider(faults=["none", fault])
    await provider.complete(talk(), 5)
    with pytest.raises(RAISED[fault]) as caught:
        await provider.complete(talk(), 0.05)
    assert type(caught.value) is RAISED[fault]
    await provider.complete(talk(), 5)


async def test_a_fault_may_say_when_to_come_back() -> None:
    provider = build_provider(faults=[{"error": "rate_limited", "retry_after_seconds": 7}])
    with pytest.raises(errors.LLMRateLimitedError) as caught:
        await provider.embed(EmbeddingRequest("fast", ("x",)), 5)
    assert caught.value.retry_after_seconds == 7


@pytest.mark.parametrize(("fault", "cause"), [("cut_off", "LLMBrokenAnswerError"), (503, "LLMOverloadedError")])
async def test_a_stream_may_break_after_some_words(fault: object, cause: str) -> None:
    provider = build_provider(faults=[{"error": fault, "after_pieces": 3}])
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await stream(provider, talk())
    assert caught.value.partial_text == "[mock answer] hello "
    assert type(caught.value.__cause__).__name__ == cause


async def test_broken_json_is_none_and_the_next_is_whole() -> None:
    provider = build_provider(faults=["broken_json"])
    broken, whole = [await provider.complete(talk(json_format=JsonFormat()), 5) for _ in range(2)]
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken.content)
    assert json.loads(whole.content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": ["x"]}, r"`options.answer` of deployment 'mock'.*knows answers, tool_calls, faults, "),
        ({"delay_seconds": -1}, r"`options.delay_seconds`"),
        ({"faults": ["rain"]}, r"`options.faults.0.error.*one of none, hang, cut_off"),
        ({"faults": [{"error": 503, "after": 1}]}, r"`options.faults.0.after`"),
        ({"tool_calls": [{"arguments": {}}]}, r"`options.tool_calls.0.name`"),
    ],
)
def test_an_option_it_does_not_know_stops_the_start(options: dict[str, object], message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        build_pool(**options)
