"""The client of scripts: one turn and many, what it keeps of what failed, and loops that come and go."""

import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import llm_pool
from llm_pool.asking.asking import AskablePool
from llm_pool.catalog import Catalog
from llm_pool.client.client import Client
from llm_pool.client.config import LLMConfig
from llm_pool.client.pools import ClientPools
from llm_pool.client.short_forms import ClientHolder
from llm_pool.types import ChatMessage, JsonFormat
from shared.errors import (
    ConfigurationError,
    LLMAuthenticationError,
    LLMOverloadedError,
    LLMStreamBrokenError,
    NotFoundError,
)
from tests.fakes.scripted_client import MOCK, Scripted
from tests.fakes.scripted_provider import Script


@pytest.fixture
def script() -> Script:
    return Script()


async def test_a_text_is_generated(script: Script) -> None:
    client = Scripted(script).client
    generation = await client.generate("hello", "be brief")
    assert (generation.content, generation.tokens_used, generation.provider) == ("fine", 5, "mock")
    (request,) = script.asked
    assert request.messages == (ChatMessage("system", "be brief"), ChatMessage("user", "hello"))
    assert (request.temperature, request.max_tokens, request.top_p) == (0.7, 512, 0.9)


async def test_options_stand_above_the_configuration(script: Script) -> None:
    wanted = JsonFormat({"type": "object"})
    await Scripted(script).client.chat("hello", temperature=0.0, max_tokens=7, json_format=wanted, tenant_id="acme")
    (request,) = script.asked
    assert (request.temperature, request.max_tokens, request.top_p) == (0.0, 7, 0.9)
    assert (request.json_format, request.tenant_id) == (wanted, "acme")


async def test_a_chat_of_many_turns(script: Script) -> None:
    turns = (ChatMessage("user", "hello"), ChatMessage("assistant", "hi"), ChatMessage("user", "well?"))
    response = await Scripted(script).client.chat(turns)
    assert response.content == "fine"
    assert script.asked[0].messages == turns


async def test_a_model_may_be_named_with_the_call(script: Script) -> None:
    scripted = Scripted(script)
    await scripted.client.chat("hello", "llama4")
    await scripted.client.chat("hello")
    assert [catalog.deployments[0].model for catalog in scripted.catalogs] == ["llama4", "mock"]


async def test_a_stream(script: Script) -> None:
    client = Scripted(script).client
    chunks = [chunk async for chunk in client.stream("hello")]
    assert "".join(chunk.delta for chunk in chunks) == "fine"
    assert chunks[-1].response is not None
    assert client.current_provider == "mock"


async def test_an_equal_call_is_answered_from_the_cache_however_hot(script: Script) -> None:
    client = Scripted(script).client
    first, second = await client.generate("hello"), await client.generate("hello")
    assert (first.cached, second.cached) == (False, True)
    assert second.content == first.content
    assert not (await client.generate("hello", temperature=0.5)).cached
    assert len(script.asked) == 2


async def test_the_cache_can_be_left_off(script: Script) -> None:
    client = Scripted(script, LLMConfig(backend="mock", enable_cache=False)).client
    assert not (await client.generate("hello")).cached
    assert not (await client.generate("hello")).cached


async def test_answers_on_disk_outlive_their_client(script: Script, tmp_path: Path) -> None:
    config = LLMConfig(backend="mock", cache_dir=tmp_path)
    first = Scripted(script, config).client
    assert not (await first.generate("hello")).cached
    await first.aclose()
    second = Scripted(script, config).client
    assert (await second.generate("hello")).cached
    await second.aclose()


async def test_a_stream_that_breaks_is_not_kept(script: Script) -> None:
    script.streams = [["fi", LLMOverloadedError("down")]]
    client = Scripted(script).client
    with pytest.raises(LLMStreamBrokenError):
        await collect(client)
    assert (await client.get_queue_stats()).by_state == {}


async def collect(client: Client) -> None:
    async for _ in client.stream("hello"):
        pass


async def test_vectors_of_one_text_or_many(script: Script) -> None:
    client = Scripted(script).client
    assert (await client.embed("one")).vectors == ((3.0, 1.0),)
    assert (await client.embed(["one", "three"])).vectors == ((3.0, 1.0), (5.0, 1.0))


async def test_how_it_stands(script: Script) -> None:
    client = Scripted(script).client
    assert (await client.get_status()).current_provider is None
    await client.chat("hello")
    status = await client.get_status()
    assert (status.current_provider, status.current_deployment) == ("mock", "mock")
    assert status.queue.by_state == {}
    assert await client.get_quota_status() == status.quota


async def test_a_health_check_says_yes_or_no(script: Script, tmp_path: Path) -> None:
    assert await Scripted(script).client.health_check() is True
    nobody = LLMConfig(catalog_file=tmp_path / "missing.yaml")
    assert await Client(nobody).health_check() is False
    assert await Client(LLMConfig(backend="olama")).health_check() is False
    assert await Client(LLMConfig(backend="ollama", api_base="http://127.0.0.1:1")).health_check() is False
    assert await Client(LLMConfig(pool_url="http://127.0.0.1:1")).health_check() is False


async def test_a_health_check_does_not_raise_what_an_adapter_raises(tmp_path: Path) -> None:
    path = tmp_path / "llmyard.yaml"
    path.write_text(
        "deployments: [{name: a, provider: sync, model: m, options: {adapter: 'json:JSONDecoder'}}]\n"
        "groups: {quality: {deployments: [a]}}"
    )
    assert await Client(LLMConfig(catalog_file=path)).health_check() is False


async def test_a_health_check_says_no_to_a_surprise(script: Script) -> None:
    def fall_over(_: Catalog) -> AskablePool:
        raise ZeroDivisionError

    assert await Client(MOCK, pools=ClientPools(MOCK, build_pool=fall_over)).health_check() is False


async def test_quotas_are_those_of_every_model_that_was_asked(script: Script) -> None:
    client = Scripted(script).client
    await client.chat("hello", "llama4")
    await client.chat("hello", "qwen3:8b")
    await client.embed("hello")
    quotas = await client.get_quota_status()
    assert [(quota.deployment, quota.model) for quota in quotas] == [
        ("mock", "llama4"), ("mock", "mock"), ("mock", "qwen3:8b"),
    ]  # fmt: skip
    assert (await client.get_status()).quota == quotas


async def test_what_one_model_used_for_chats_and_vectors_is_added_up(script: Script) -> None:
    client = Scripted(script).client
    await client.chat("hello")
    await client.embed("hello")
    (quota,) = await client.get_quota_status()
    assert [info.used for info in quota.quotas if info.kind == "requests"] == [2]


async def test_the_mock_says_that_it_is_one() -> None:
    client = Client(MOCK)
    generation = await client.generate("hello")
    assert generation.content.startswith("[mock answer] ")
    assert generation.provider == client.current_provider == "mock"
    await client.aclose()


async def test_an_unknown_backend_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'olama', which is unknown: use one of anthropic, .*ollama.*remote"):
        await Client(LLMConfig(backend="olama")).chat("hello")


async def test_without_a_backend_the_groups_of_a_catalogue_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "llmyard.yaml"
    path.write_text(
        "deployments: [{name: a, provider: mock, model: m}]\n"
        "groups: {quality: {deployments: [a]}, fast: {deployments: [a]}, embedding: {deployments: [a]}}"
    )
    client = Client(LLMConfig(catalog_file=path))
    assert (await client.chat("hello")).deployment == "a"
    assert (await client.chat("hello", "fast")).deployment == "a"
    assert len((await client.embed("hello")).vectors) == 1
    with pytest.raises(NotFoundError, match="use one of: quality, fast, embedding"):
        await client.chat("hello", "qwen3:8b")
    await client.aclose()


def test_each_loop_has_connections_of_its_own_and_closes_them(script: Script) -> None:
    """A script that calls `asyncio.run` twice must not meet what the first loop left."""
    client = Scripted(script).client

    async def chat() -> str:
        script.closed = False
        return (await client.chat("hello")).content

    for _ in range(2):
        assert asyncio.run(chat()) == "fine"
        assert script.closed


@pytest.mark.filterwarnings("error")
def test_a_client_that_is_dropped_is_closed_with_its_loop(script: Script) -> None:
    async def chat() -> None:
        await Scripted(script).client.chat("hello")
        gc.collect()
        assert not script.closed

    asyncio.run(chat())
    assert script.closed


def test_calls_at_once_open_one_pool(script: Script) -> None:
    scripted = Scripted(script)

    async def chat() -> Any:
        return await asyncio.gather(*(scripted.client.chat("hello") for _ in range(20)))

    asyncio.run(chat())
    assert len(scripted.catalogs) == 1


async def test_a_pool_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "llmyard.yaml"
    client = Client(LLMConfig(catalog_file=path))
    with pytest.raises(ConfigurationError):
        await client.chat("hello")
    path.write_text("deployments: [{name: a, provider: mock, model: m}]\ngroups: {quality: {deployments: [a]}}")
    assert (await client.chat("hello")).deployment == "a"
    await client.aclose()


async def test_one_client_a_process_until_it_is_reset() -> None:
    holder = ClientHolder()
    first = holder.get(MOCK)
    assert holder.get() is first
    assert holder.get(LLMConfig(backend="ollama")) is first
    await holder.reset()
    assert holder.get(LLMConfig(backend="ollama")).config.backend == "ollama"
    await holder.reset()
    await holder.reset()


async def test_cloud_and_local_are_of_one_provider_and_can_be_told_apart(script: Script) -> None:
    script.steps = [LLMAuthenticationError("no"), "fine"]
    client = Scripted(script, LLMConfig(backend="ollama", api_key="k")).client
    await client.chat("hello")
    assert (client.current_provider, client.current_deployment) == ("ollama", "ollama-local")


async def test_the_short_forms() -> None:
    await llm_pool.reset_client()
    client = llm_pool.get_client(MOCK)
    try:
        assert (await llm_pool.chat("hello")).content == "[mock answer] hello"
        assert (await llm_pool.generate("hello", "be brief")).content == "[mock answer] hello"
        assert len((await llm_pool.embed("hello")).vectors) == 1
        assert [chunk async for chunk in llm_pool.stream("hello")][-1].response is not None
        assert (await llm_pool.get_status()).current_provider == "mock"
        assert (await llm_pool.process_queue()).answered == 0
        assert llm_pool.get_client() is client
    finally:
        await llm_pool.reset_client()


def test_every_name_of_the_package_is_there_and_no_other() -> None:
    assert all(getattr(llm_pool, name) is not None for name in dir(llm_pool))
    with pytest.raises(AttributeError, match="no attribute 'chatt'"):
        llm_pool.chatt  # noqa: B018 - that it raises is the point


def test_importing_the_package_loads_nothing() -> None:
    check = "import sys, llm_pool; assert not [n for n in sys.modules if n.startswith(('llm_pool.', 'pydantic'))]"
    subprocess.run([sys.executable, "-c", check], check=True)
