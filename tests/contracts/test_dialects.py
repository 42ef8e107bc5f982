"""What a provider needs to be made, what it declares, and whether somebody is there."""

import socket

import pytest

from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.providers.presets import PRESETS
from llm_pool.providers.registry import PROVIDERS
from llm_pool.types import ChatMessage, CompletionRequest
from shared import errors
from tests.contracts.served import opened, sent
from tests.fakes.dialects import ANTHROPIC, DIALECTS, OLLAMA, OPENAI, Dialect
from tests.fakes.provider_server import hang_up, never_answer, send_bytes, send_json


@pytest.mark.parametrize(
    ("kind", "base_url", "api_key", "message"),
    [
        ("openai_compatible", None, "k", "`base_url` of deployment 'one'"),
        ("openai_compatible", "localhost:8000", "k", "http:// or https://"),
        ("openai", None, None, "`api_key` of deployment 'one' is not set"),
        ("gemini", None, None, "`api_key` of deployment 'one' is not set"),
        ("anthropic", None, None, "`api_key` of deployment 'one' is not set"),
    ],
)
def test_a_deployment_that_lacks_something_stops_the_start(
    kind: str, base_url: str | None, api_key: str | None, message: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        PROVIDERS[kind](Deployment("one", kind, "m", base_url, api_key), Connections())


@pytest.mark.parametrize("kind", [name for name, preset in PRESETS.items() if preset.base_url])
def test_a_preset_needs_no_address_and_a_local_one_no_key(kind: str) -> None:
    api_key = "k" if PRESETS[kind].needs_key else None
    provider = PROVIDERS[kind](Deployment("one", kind, "m", api_key=api_key), Connections())
    assert {"chat", "stream"} <= provider.capabilities
    assert ("embed" in provider.capabilities) == (kind not in ("groq", "mlx_server"))


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=lambda dialect: dialect.provider)
async def test_somebody_who_answers_is_there(dialect: Dialect) -> None:
    async with opened(dialect) as (provider, server):
        for behave in (send_json({"data": []}), send_bytes(b"Not Found", 404)):
            server.behave = behave
            assert await provider.is_healthy(5) is True
        assert server.received[0].path == "/v1/models"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
async def test_nobody_is_there_without_an_error(dialect: Dialect) -> None:
    async with opened(dialect) as (provider, server):
        for behave in (send_json({}, 401), send_json({}, 503), never_answer, hang_up):
            server.behave = behave
            assert await provider.is_healthy(0.1) is False


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
async def test_nobody_listens_without_an_error(dialect: Dialect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with opened(dialect, base_url=f"http://127.0.0.1:{taken.getsockname()[1]}") as (provider, _):
            assert await provider.is_healthy(1) is False


async def test_ollama_options_go_where_ollama_wants_them() -> None:
    request = CompletionRequest("fast", (ChatMessage("user", "hello"),), temperature=0.5, max_tokens=9)
    body = await sent(OLLAMA, request, options={"think": False, "keep_alive": "5m", "num_ctx": 2048})
    assert (body["think"], body["keep_alive"], body["stream"]) == (False, "5m", False)
    assert body["options"] == {"num_ctx": 2048, "temperature": 0.5, "num_predict": 9}


async def test_ollama_that_only_loaded_its_model_has_not_answered() -> None:
    async with opened(OLLAMA) as (provider, server):
        server.behave = send_json(OLLAMA.answer("", "load"))
        with pytest.raises(errors.LLMBrokenAnswerError):
            await provider.complete(CompletionRequest("fast", (ChatMessage("user", "hello"),)), 5)


async def test_ollama_cloud_key_stays_away_from_a_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "for the cloud only")
    async with opened(OLLAMA, api_key=None) as (provider, server):
        await provider.complete(CompletionRequest("fast", (ChatMessage("user", "hello"),)), 5)
    assert "Authorization" not in server.received[0].headers
