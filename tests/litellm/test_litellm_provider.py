"""The real LiteLLM against a real server: it lives in an environment of its own, as it pins older SDKs."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from llm_pool.providers.litellm import LiteLLMProvider
from llm_pool.types import EmbeddingAnswer, EmbeddingRequest, JsonFormat, ProviderAnswer, StreamChunk, Tool, ToolCall
from shared import errors
from shared.attempts import Usage
from tests.contracts.served import ask, opened, read
from tests.fakes.dialects import OPENAI, Json, event_of
from tests.fakes.provider_server import (
    Behaviour,
    ProviderServer,
    hang_up,
    never_answer,
    reset,
    send_bytes,
    send_json,
    send_stream,
)

pytestmark = pytest.mark.skipif(
    find_spec("litellm") is None, reason="LiteLLM is not installed here: run `make test-litellm`"
)

WEATHER = Tool("get_weather", "the weather of a place", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture
async def opened_provider() -> AsyncIterator[tuple[LiteLLMProvider, ProviderServer]]:
    async with opened(OPENAI, provider="litellm", model="openai/some-model", api_key=None) as provider_and_server:
        yield provider_and_server


@pytest.fixture
def provider(opened_provider: tuple[LiteLLMProvider, ProviderServer]) -> LiteLLMProvider:
    return opened_provider[0]


@pytest.fixture
def server(opened_provider: tuple[LiteLLMProvider, ProviderServer]) -> ProviderServer:
    return opened_provider[1]


async def test_an_answer(provider: LiteLLMProvider) -> None:
    assert await ask(provider, 30) == ProviderAnswer("fine", "model-as-served", "stop", Usage(11, 5))


async def test_what_is_sent(provider: LiteLLMProvider, server: ProviderServer) -> None:
    await ask(provider, 30, temperature=0.25, max_tokens=77, json_format=JsonFormat({"type": "object"}))
    body = server.received[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("some-model", 0.25, 77)
    assert body["messages"][-1] == {"role": "user", "content": "hello"}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


async def test_the_key_of_the_environment_is_not_sent_to_a_server_of_ours(
    provider: LiteLLMProvider, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
    await ask(provider, 30)
    assert "of the environment" not in str(server.received[0].headers)


async def test_a_configured_key_is_sent() -> None:
    async with opened(OPENAI, provider="litellm", model="openai/m", api_key="ours") as (provider, server):
        await ask(provider, 30)
    assert server.received[0].headers["Authorization"] == "Bearer ours"


async def test_a_tool_call(provider: LiteLLMProvider, server: ProviderServer) -> None:
    answer = OPENAI.answer("", "tool_calls")
    call: Json = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Kyoto"}'}}
    answer["choices"][0]["message"]["tool_calls"] = [call]
    server.behave = send_json(answer)
    said = await ask(provider, 30, tools=(WEATHER,), tool_choice="get_weather")
    assert said.tool_calls == (ToolCall("c1", "get_weather", '{"city": "Kyoto"}'),)
    assert said.finish_reason == "tool_calls"
    assert server.received[0].body["tool_choice"]["function"]["name"] == "get_weather"


async def test_a_stream(provider: LiteLLMProvider, server: ProviderServer) -> None:
    server.behave = send_stream(OPENAI, OPENAI.stream("fi", "né"))
    pieces: list[StreamChunk] = []
    answer = await read(provider, pieces, first_seconds=30.0)
    assert [piece.delta for piece in pieces] == ["fi", "né"]
    assert (answer.content, answer.finish_reason, answer.usage) == ("finé", "stop", Usage(11, 5))


BREAKS: dict[str, Behaviour] = {
    "just ends": send_stream(OPENAI, OPENAI.pieces(["fi"])),
    "is reset": send_stream(OPENAI, OPENAI.pieces(["fi"]), then=reset),
    "tells of an error": send_stream(OPENAI, [*OPENAI.pieces(["fi"]), event_of(OPENAI.overloaded)]),
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_that_breaks_is_told_as_such(
    provider: LiteLLMProvider, server: ProviderServer, how: str
) -> None:
    server.behave = BREAKS[how]
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await read(provider, first_seconds=30.0)
    assert caught.value.partial_text == "fi"


async def test_an_empty_stream_falls_back(provider: LiteLLMProvider, server: ProviderServer) -> None:
    server.behave = send_stream(OPENAI, [])
    with pytest.raises(errors.LLMBrokenAnswerError):
        await read(provider, first_seconds=30.0)


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (400, errors.LLMInvalidRequestError),
        (401, errors.LLMAuthenticationError),
        (402, errors.LLMQuotaExhaustedError),
        (403, errors.LLMAuthenticationError),
        (404, errors.LLMModelNotFoundError),
        (408, errors.LLMTimeoutError),
        (413, errors.LLMContextTooLongError),
        (429, errors.LLMRateLimitedError),
        (500, errors.LLMOverloadedError),
        (503, errors.LLMOverloadedError),
        (529, errors.LLMOverloadedError),
    ],
)
async def test_an_error_status_is_asked_once_and_typed(
    provider: LiteLLMProvider, server: ProviderServer, status: int, error_class: type[errors.LLMError]
) -> None:
    server.behave = send_json(OPENAI.error("as people read it"), status, {"Retry-After": "3"})
    with pytest.raises(errors.LLMError, match="as people read it") as caught:
        await ask(provider, 30)
    assert type(caught.value) is error_class
    assert caught.value.retry_after_seconds == 3.0
    assert len(server.received) == 1


CODES = {
    "insufficient_quota": (429, errors.LLMQuotaExhaustedError),
    "context_length_exceeded": (400, errors.LLMContextTooLongError),
    "content_policy_violation": (400, errors.LLMContentBlockedError),
}


@pytest.mark.parametrize("code", CODES)
async def test_what_the_provider_calls_its_error_counts(
    provider: LiteLLMProvider, server: ProviderServer, code: str
) -> None:
    status, error_class = CODES[code]
    document = {"error": {"message": f"{code}: as people read it", "type": code, "param": None, "code": code}}
    server.behave = send_json(document, status)
    with pytest.raises(errors.LLMError) as caught:
        await ask(provider, 30)
    assert type(caught.value) is error_class


@pytest.mark.parametrize("behave", [hang_up, send_bytes(b"<html>"), send_json({}), send_json({"choices": []})])
async def test_no_answer_is_a_failure_that_falls_back(
    provider: LiteLLMProvider, server: ProviderServer, behave: Behaviour
) -> None:
    server.behave = behave
    with pytest.raises(errors.LLMError) as caught:
        await ask(provider, 30)
    assert caught.value.falls_back


async def test_the_time_allowed_bounds_the_whole_and_closes_the_socket(
    provider: LiteLLMProvider, server: ProviderServer
) -> None:
    await ask(provider, 30)
    server.behave = never_answer
    started = time.monotonic()
    with pytest.raises(errors.LLMTimeoutError):
        await ask(provider, 0.3)
    assert time.monotonic() - started < 1.0
    await asyncio.wait_for(server.hung_up.wait(), 2)


async def test_vectors(provider: LiteLLMProvider, server: ProviderServer) -> None:
    vectors = [{"object": "embedding", "index": n, "embedding": [float(n), 1.0]} for n in range(2)]
    document = {"object": "list", "data": vectors, "model": "model-as-served", "usage": {"prompt_tokens": 7}}
    async with opened(
        OPENAI.__class__(**{**vars(OPENAI), "path": "/v1/embeddings"}), provider="litellm", model="openai/m"
    ) as (provider, server):
        server.behave = send_json(document)
        answer = await provider.embed(EmbeddingRequest("fast", ("a", "b")), 30)
    assert answer == EmbeddingAnswer(((0.0, 1.0), (1.0, 1.0)), "model-as-served", Usage(7, 0))


async def test_a_provider_that_litellm_does_not_know_is_no_model() -> None:
    async with opened(OPENAI, provider="litellm", model="nobody/knows", base_url=None) as (provider, _):
        with pytest.raises(errors.LLMError) as caught:
            await ask(provider, 30)
    assert type(caught.value) in (errors.LLMModelNotFoundError, errors.LLMInvalidRequestError)


LOAD = """
import asyncio, sys
from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.providers.litellm import create_litellm

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo") and arguments[0] is not None:
        print("reached for", arguments)

sys.addaudithook(watch)
provider = create_litellm(Deployment("one", "litellm", "openai/m"), Connections())
asyncio.run(provider._load())
import litellm
print("loaded", litellm.callbacks, litellm.success_callback, litellm.failure_callback)
"""


def test_loading_it_reaches_for_nobody_and_calls_nobody_back() -> None:
    ended = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == ["loaded [] [] []"]
