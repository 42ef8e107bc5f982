"""Which catalogue holds: what cannot be reached is left out, and the mock answers only where it was allowed to."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from llm_pool.catalogs.startup import choose_catalog
from llm_pool.pool import Pool
from llm_pool.types import EmbeddingRequest
from shared.errors import ConfigurationError
from tests.fakes.scripted_provider import ask

TEXT = """
deployments:
  - {{name: here, provider: ollama, model: m, base_url: "http://127.0.0.1:{port}", only_if_reachable: true}}
  - {{name: keyed, provider: mock, model: m, api_key: "${{KEY}}"}}
groups:
  best: {{deployments: [here, keyed]}}
  other: {{deployments: [here]}}
"""


@pytest.fixture
async def listening_port() -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def closed_port(listening_port: int) -> int:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def write(tmp_path: Path, port: int) -> Path:
    path = tmp_path / "llmyard.yaml"
    path.write_text(TEXT.format(port=port))
    return path


async def test_what_listens_stays(tmp_path: Path, listening_port: int) -> None:
    catalog = await choose_catalog(write(tmp_path, listening_port), {}.get, allow_mock=False)
    assert [deployment.name for deployment in catalog.deployments] == ["here"]


async def test_what_does_not_listen_is_left_out_and_a_group_with_nobody_is_told(
    tmp_path: Path, closed_port: int
) -> None:
    with capture_logs() as logs:
        catalog = await choose_catalog(write(tmp_path, closed_port), {"KEY": "k"}.get, allow_mock=False)
    assert [deployment.name for deployment in catalog.deployments] == ["keyed"]
    assert catalog.group_names == ("best", "other")
    assert [log["model_group"] for log in logs if log["event"] == "group_without_deployment"] == ["other"]


async def test_with_nobody_the_start_stops_and_says_what_to_set(tmp_path: Path, closed_port: int) -> None:
    with pytest.raises(ConfigurationError, match=r"^No model provider.*: set KEY or LLMYARD_CONFIG\.$"):
        await choose_catalog(write(tmp_path, closed_port), {}.get, allow_mock=False)


async def test_where_allowed_the_mock_answers_under_the_same_names_and_says_so(
    tmp_path: Path, closed_port: int
) -> None:
    with capture_logs() as logs:
        catalog = await choose_catalog(write(tmp_path, closed_port), {}.get, allow_mock=True)
    assert catalog.group_names == ("best", "other")
    assert "mock_provider_stands_in" in [log["event"] for log in logs if log["log_level"] == "warning"]
    response = await Pool(catalog).complete(ask("other", "hi"))
    assert response.content == "[mock answer] hi"
    assert response.provider == "mock"


async def test_the_mock_that_stands_in_makes_vectors_too(tmp_path: Path, closed_port: int) -> None:
    catalog = await choose_catalog(write(tmp_path, closed_port), {}.get, allow_mock=True)
    response = await Pool(catalog).embed(EmbeddingRequest("other", ("one", "two")))
    assert (len(response.vectors), response.provider) == (2, "mock")


async def test_a_key_keeps_the_mock_out_even_where_allowed(tmp_path: Path, closed_port: int) -> None:
    catalog = await choose_catalog(write(tmp_path, closed_port), {"KEY": "k"}.get, allow_mock=True)
    assert [deployment.name for deployment in catalog.deployments] == ["keyed"]


async def test_the_shipped_catalogue_names_the_usual_keys() -> None:
    with pytest.raises(ConfigurationError) as caught:
        await choose_catalog(None, {"OLLAMA_HOST": ""}.get, allow_mock=False)
    assert {"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OLLAMA_HOST", "LLMYARD_CONFIG"} <= set(
        str(caught.value).replace(".", "").split()
    )


@pytest.mark.parametrize(
    "address", ["http://localhost:{port}/", "127.0.0.1:{port}", "localhost:{port}", "0.0.0.0:{port}"]
)
async def test_a_server_that_is_listed_twice_is_asked_once(tmp_path: Path, listening_port: int, address: str) -> None:
    text = TEXT + "  both: {{deployments: [here, named]}}\n"
    text = text.replace(
        "groups:",
        '  - {{name: named, provider: ollama, model: m, base_url: "ADDRESS"}}\ngroups:'.replace("ADDRESS", address),
    )
    path = tmp_path / "llmyard.yaml"
    path.write_text(text.format(port=listening_port))
    catalog = await choose_catalog(path, {}.get, allow_mock=False)
    assert [deployment.name for deployment in catalog.deployments] == ["named"]
