"""What each provider's own dialect adds to the common suite."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_pool.catalog import Deployment
from llm_pool.providers.base import Provider
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from llm_pool.types import ChatMessage, CompletionRequest
from shared import errors
from shared.attempts import Usage
from tests.fakes.provider_server import ANTHROPIC, OLLAMA, OPENAI, Dialect, ProviderServer, send_json, serve

MESSAGES = (
    ChatMessage("system", "be brief"),
    ChatMessage("user", "hello"),
    ChatMessage("assistant", "hi"),
    ChatMessage("system", "and kind"),
    ChatMessage("user", "bye"),
)
REQUEST = CompletionRequest("fast", MESSAGES)


@asynccontextmanager
async def opened(
    dialect: Dialect, kind: str | None = None, api_key: str | None = "secret", **options: object
) -> AsyncIterator[tuple[Provider, ProviderServer]]:
    connections = Connections()
    async with serve(dialect) as server:
        deployment = Deployment("one", dialect.provider, "m", server.base_url, api_key, options=options)
        provider = PROVIDERS[kind or dialect.provider](deployment, connections)
        yield provider, server
        await provider.aclose()
        await connections.aclose()


async def sent(dialect: Dialect, request: CompletionRequest = REQUEST, **settings: Any) -> dict[str, Any]:
    async with opened(dialect, **settings) as (provider, server):
        await provider.complete(request, 5)
        return server.received[0].body


async def failure(dialect: Dialect, document: object, status: int = 200) -> errors.LLMError:
    async with opened(dialect) as (provider, server):
        server.behave = send_json(document, status)
        with pytest.raises(errors.LLMError) as caught:
            await provider.complete(REQUEST, 5)
        return caught.value


def openai_error(**fields: object) -> dict[str, object]:
    return {"error": {"message": "as people read it", "type": None, "code": None, **fields}}


@pytest.mark.parametrize(
    ("status", "document", "error_class"),
    [
        (429, openai_error(type="insufficient_quota", code="insufficient_quota"), errors.LLMQuotaExhaustedError),
        (429, openai_error(type="requests", code="rate_limit_exceeded"), errors.LLMRateLimitedError),
        (400, openai_error(code="context_length_exceeded"), errors.LLMContextTooLongError),
        (400, openai_error(code=400, type="exceed_context_size_error"), errors.LLMContextTooLongError),
        (400, openai_error(code="content_filter"), errors.LLMContentBlockedError),
        (400, openai_error(type="invalid_request_error"), errors.LLMInvalidRequestError),
        (403, openai_error(code="model_not_found"), errors.LLMModelNotFoundError),
        (404, {"error": "a text, as mlx-lm writes it"}, errors.LLMModelNotFoundError),
        (400, {"object": "error", "message": "as vLLM wrote it", "code": 400}, errors.LLMInvalidRequestError),
        (200, openai_error(code=429), errors.LLMRateLimitedError),
        (200, openai_error(code=502), errors.LLMOverloadedError),
        (200, openai_error(code="server_error"), errors.LLMOverloadedError),
        (200, openai_error(), errors.LLMBrokenAnswerError),
        (200, {"error": "a text"}, errors.LLMBrokenAnswerError),
    ],
)
async def test_openai_errors_by_their_code(status: int, document: object, error_class: type[Exception]) -> None:
    assert type(await failure(OPENAI, document, status)) is error_class


async def test_openai_quota_that_is_used_up_for_good_is_not_retried_but_parks() -> None:
    error = await failure(OPENAI, openai_error(code="insufficient_quota"), 429)
    assert (error.is_retryable, error.falls_back, error.parks) == (False, True, True)


async def test_openai_filter_and_empty_content() -> None:
    assert isinstance(await failure(OPENAI, OPENAI.answer("", "content_filter")), errors.LLMContentBlockedError)
    answer = OPENAI.answer("", "stop")
    answer["choices"][0]["message"]["content"] = None
    assert isinstance(await failure(OPENAI, answer), errors.LLMBrokenAnswerError)


async def test_openai_answer_without_usage_is_an_answer() -> None:
    async with opened(OPENAI) as (provider, server):
        answer = OPENAI.answer("fine", "stop")
        del answer["usage"], answer["model"]
        server.behave = send_json(answer)
        answered = await provider.complete(REQUEST, 5)
    assert (answered.content, answered.usage, answered.model) == ("fine", None, "m")


async def test_openai_body() -> None:
    request = CompletionRequest("fast", MESSAGES, max_tokens=9)
    body = await sent(OPENAI, request, reasoning_effort="low", temperature=0.1)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "system", "user"]
    assert (body["max_tokens"], body["reasoning_effort"], body["temperature"]) == (9, "low", 0.1)
    assert "max_tokens" not in await sent(OPENAI, request, kind="openai")
    assert (await sent(OPENAI, request, kind="openai"))["max_completion_tokens"] == 9


async def test_openai_compatible_servers_need_no_key() -> None:
    async with opened(OPENAI, api_key=None) as (provider, server):
        await provider.complete(REQUEST, 5)
    assert "Authorization" not in server.received[0].headers


@pytest.mark.parametrize(
    ("status", "kind", "error_class"),
    [
        (400, "invalid_request_error", errors.LLMInvalidRequestError),
        (402, "billing_error", errors.LLMQuotaExhaustedError),
        (403, "permission_error", errors.LLMAuthenticationError),
        (413, "request_too_large", errors.LLMContextTooLongError),
        (529, "overloaded_error", errors.LLMOverloadedError),
        (200, "overloaded_error", errors.LLMOverloadedError),
        (200, "rate_limit_error", errors.LLMRateLimitedError),
    ],
)
async def test_anthropic_errors_by_their_type(status: int, kind: str, error_class: type[Exception]) -> None:
    document = {"type": "error", "error": {"type": kind, "message": "as people read it"}}
    assert type(await failure(ANTHROPIC, document, status)) is error_class


async def test_anthropic_takes_system_apart_and_always_has_a_bound() -> None:
    body = await sent(ANTHROPIC)
    assert body["system"] == "be brief\n\nand kind"
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["max_tokens"] == 4096
    assert (await sent(ANTHROPIC, max_tokens=50))["max_tokens"] == 50
    request = CompletionRequest("fast", MESSAGES[1:2], max_tokens=9)
    body = await sent(ANTHROPIC, request, max_tokens=50)
    assert body["max_tokens"] == 9
    assert "system" not in body


async def test_anthropic_counts_what_its_prompt_cache_read_and_a_refusal_blocks() -> None:
    async with opened(ANTHROPIC) as (provider, server):
        answer = ANTHROPIC.answer("fine", "end_turn")
        answer["usage"] |= {"cache_read_input_tokens": 100, "cache_creation_input_tokens": None}
        server.behave = send_json(answer)
        assert (await provider.complete(REQUEST, 5)).usage == Usage(111, 5)
        assert server.received[0].headers["anthropic-version"] == "2023-06-01"
    assert isinstance(await failure(ANTHROPIC, ANTHROPIC.answer("", "refusal")), errors.LLMContentBlockedError)


async def test_ollama_options_go_where_ollama_wants_them() -> None:
    request = CompletionRequest("fast", MESSAGES, temperature=0.5, max_tokens=9)
    body = await sent(OLLAMA, request, think=False, keep_alive="5m", num_ctx=2048)
    assert (body["think"], body["keep_alive"], body["stream"]) == (False, "5m", False)
    assert body["options"] == {"num_ctx": 2048, "temperature": 0.5, "num_predict": 9}


async def test_ollama_that_only_loaded_its_model_has_not_answered() -> None:
    assert isinstance(await failure(OLLAMA, OLLAMA.answer("", "load")), errors.LLMBrokenAnswerError)


async def test_ollama_cloud_key_stays_away_from_a_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "for the cloud only")
    async with opened(OLLAMA, api_key=None) as (provider, server):
        await provider.complete(REQUEST, 5)
    assert "Authorization" not in server.received[0].headers


@pytest.mark.parametrize(
    ("kind", "base_url", "api_key", "message"),
    [
        ("openai_compatible", None, "k", "`base_url` of deployment 'one'"),
        ("openai_compatible", "localhost:8000", "k", "http:// or https://"),
        ("openai", None, None, "`api_key` of deployment 'one' is not set"),
        ("anthropic", None, None, "`api_key` of deployment 'one' is not set"),
    ],
)
def test_a_deployment_that_lacks_something_stops_the_start(
    kind: str, base_url: str | None, api_key: str | None, message: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        PROVIDERS[kind](Deployment("one", kind, "m", base_url, api_key), Connections())
