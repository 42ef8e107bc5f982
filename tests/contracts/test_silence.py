"""An answer of no words and no tool calls: one rule for whole answers and streams, in every dialect."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llm_pool.catalog import Catalog, ModelGroup
from llm_pool.pool import Pool
from llm_pool.types import ChatMessage, CompletionRequest, ProviderAnswer, ToolCall
from shared import errors
from tests.contracts.served import MESSAGES, ask, describe, fail, fail_stream, opened, read
from tests.fakes.dialects import ANTHROPIC, OPENAI, Dialect
from tests.fakes.provider_server import Behaviour, answer_as_asked, send_json, send_stream, serve

Ask = Callable[..., Awaitable[ProviderAnswer]]
Fail = Callable[..., Awaitable[errors.LLMError]]
Say = Callable[[Dialect, str], Behaviour]


def say_whole(dialect: Dialect, finish_reason: str) -> Behaviour:
    return send_json(dialect.answer("", finish_reason))


def say_in_a_stream(dialect: Dialect, finish_reason: str) -> Behaviour:
    return send_stream(dialect, dialect.stream(finish_reason=finish_reason))


WAYS: dict[str, tuple[Say, Ask, Fail]] = {
    "whole": (say_whole, ask, fail),
    "streamed": (say_in_a_stream, read, fail_stream),
}
AFTER_TOOLS = (
    *MESSAGES,
    ChatMessage("assistant", tool_calls=(ToolCall("c1", "switch_off", "{}"),)),
    ChatMessage("tool", "done", tool_call_id="c1"),
)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Say, Ask, Fail]:
    return WAYS[request.param]


async def ask_in_silence(dialect: Dialect, way: tuple[Say, Ask, Fail], finish_reason: str, **fields: Any) -> str:
    say, ask_provider, _ = way
    async with opened(dialect) as (provider, server):
        server.behave = say(dialect, finish_reason)
        answer = await ask_provider(provider, **fields)
    assert answer.content == ""
    return answer.finish_reason


async def test_who_says_nothing_and_stops_has_not_answered(dialect: Dialect, way: tuple[Say, Ask, Fail]) -> None:
    say, _, fail_to_ask = way
    error = await fail_to_ask(dialect, say(dialect, dialect.stopped))
    assert type(error) is errors.LLMBrokenAnswerError
    assert (error.is_retryable, error.falls_back, error.parks) == (True, True, True)


async def test_who_thought_until_the_bound_has_answered(dialect: Dialect, way: tuple[Say, Ask, Fail]) -> None:
    assert await ask_in_silence(dialect, way, dialect.cut_by_length) == "length"


async def test_who_knows_the_results_of_tools_may_have_nothing_to_add(
    dialect: Dialect, way: tuple[Say, Ask, Fail]
) -> None:
    assert await ask_in_silence(dialect, way, dialect.stopped, messages=AFTER_TOOLS) == "stop"


async def test_a_stop_text_may_come_first(dialect: Dialect, way: tuple[Say, Ask, Fail]) -> None:
    assert await ask_in_silence(dialect, way, dialect.stopped, stop=("END",)) == "stop"


@pytest.mark.parametrize(("dialect", "called"), [(OPENAI, "tool_calls"), (ANTHROPIC, "tool_use")])
async def test_who_ends_for_a_tool_call_that_is_not_there_has_not_answered(
    dialect: Dialect, called: str, way: tuple[Say, Ask, Fail]
) -> None:
    say, _, fail_to_ask = way
    assert type(await fail_to_ask(dialect, say(dialect, called))) is errors.LLMBrokenAnswerError


@pytest.mark.parametrize(("dialect", "withheld"), [(OPENAI, "content_filter"), (ANTHROPIC, "refusal")])
async def test_who_withheld_it_all_has_blocked_it(dialect: Dialect, withheld: str, way: tuple[Say, Ask, Fail]) -> None:
    say, _, fail_to_ask = way
    assert type(await fail_to_ask(dialect, say(dialect, withheld))) is errors.LLMContentBlockedError


async def test_a_silent_answer_is_answered_by_the_next() -> None:
    async with serve(OPENAI) as silent, serve(ANTHROPIC) as second:
        silent.behave = answer_as_asked(OPENAI, "")
        deployments = (describe(silent, "silent"), describe(second, "second"))
        pool = Pool(Catalog({"fast": ModelGroup("fast", deployments, strategy="priority", retries=0)}))
        whole = await pool.complete(CompletionRequest("fast", MESSAGES))
        streamed = [chunk async for chunk in pool.stream(CompletionRequest("fast", MESSAGES))][-1].response
        await pool.aclose()
    assert streamed is not None
    for response in (whole, streamed):
        assert (response.content, response.deployment) == ("fine", "second")
        assert response.attempts[0].error_type == "LLMBrokenAnswerError"
