"""How the short forms are configured, and whom each backend asks."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_pool.catalog import Deployment
from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, load_catalog
from llm_pool.client.backends import build_chat_catalog, build_embedding_catalog, list_backends
from llm_pool.client.config import LLMConfig, load_config, read_config
from llm_pool.client.model_names import takes_temperature
from llm_pool.policies import CachePolicy
from llm_pool.pool import Pool
from shared.errors import ConfigurationError, InputError
from shared.settings import Settings

OPENAI = {"OPENAI_API_KEY": "sk-openai"}
ANTHROPIC = {"ANTHROPIC_API_KEY": "sk-ant-1"}


def build(config: LLMConfig, variables: Mapping[str, str] | None = None) -> tuple[Deployment, ...]:
    catalog = build_chat_catalog(config, config.backend or "", (variables or {}).get)
    return catalog.get_group(config.backend or "").deployments


def test_the_defaults() -> None:
    assert read_config(Settings()) == LLMConfig(
        temperature=0.7, max_tokens=512, top_p=0.9, timeout_seconds=30.0, enable_cache=True
    )


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = {
        "LLM_BACKEND": "groq",
        "LLM_MODEL": "llama4",
        "LLM_API_KEY": "a key",
        "LLM_API_BASE": "http://127.0.0.1:1",
        "LLM_TEMPERATURE": "0",
        "LLM_MAX_TOKENS": "7",
        "LLM_TOP_P": "0.5",
        "LLM_TIMEOUT": "2.5",
        "LLM_ENABLE_CACHE": "false",
        "LLM_CACHE_DIR": str(tmp_path),
        "LLMYARD_CONFIG": str(tmp_path / "llmyard.yaml"),
        "LLM_POOL_URL": "http://127.0.0.1:8002",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_config() == LLMConfig(
        backend="groq",
        model="llama4",
        api_key="a key",
        api_base="http://127.0.0.1:1",
        temperature=0.0,
        max_tokens=7,
        top_p=0.5,
        timeout_seconds=2.5,
        enable_cache=False,
        cache_dir=tmp_path,
        catalog_file=tmp_path / "llmyard.yaml",
        pool_url="http://127.0.0.1:8002",
    )
    assert load_config(tmp_path / "mine.yaml").catalog_file == tmp_path / "mine.yaml"


@pytest.mark.parametrize(
    ("name", "value"),
    [("LLM_TEMPERATURE", "hot"), ("LLM_TEMPERATURE", "3"), ("LLM_MAX_TOKENS", "0"), ("LLM_TIMEOUT", "-1")],
)
def test_a_value_that_cannot_be_used_stops_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name} cannot be used: "):
        load_config()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_attempt_needs_time(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=r"^`timeout_seconds` is .*: set it to more than 0"):
        LLMConfig(timeout_seconds=seconds)


def test_the_key_is_not_shown() -> None:
    assert "sk-" not in repr(LLMConfig(api_key="sk-1"))
    assert "sk-" not in repr(Settings(llm_api_key="sk-1"))


@pytest.mark.parametrize("settings", [Settings(llm_api_key="sk-1"), Settings(llm_api_base="http://127.0.0.1:1/v1")])
def test_a_key_or_an_address_alone_means_a_remote_backend(settings: Settings) -> None:
    assert read_config(settings).backend == "remote"


def test_ollama_asks_the_cloud_first_where_there_is_a_key() -> None:
    cloud, local = build(LLMConfig(backend="ollama"), {"OLLAMA_API_KEY": "k"})
    assert (cloud.base_url, cloud.api_key) == ("https://ollama.com", "k")
    assert (local.base_url, local.api_key, local.model) == ("http://127.0.0.1:11434", None, "qwen3:8b")
    assert local.timeout_seconds == 30
    catalog = build_chat_catalog(LLMConfig(backend="ollama"), "ollama", {"OLLAMA_API_KEY": "k"}.get)
    assert catalog.get_group("ollama").strategy == "priority"


def test_ollama_without_a_key_is_local() -> None:
    (local,) = build(LLMConfig(backend="ollama"), {"OLLAMA_HOST": "10.0.0.1:11434"})
    assert (local.base_url, local.only_if_reachable) == ("10.0.0.1:11434", False)


def test_a_key_given_with_the_address_of_an_ollama_goes_there_only() -> None:
    config = LLMConfig(backend="ollama", api_base="https://ollama.example.com", api_key="theirs")
    (named,) = build(config, {"OLLAMA_API_KEY": "of the cloud"})
    assert (named.base_url, named.api_key) == ("https://ollama.example.com", "theirs")


def test_the_key_of_ollamas_cloud_goes_to_no_other_server() -> None:
    config = LLMConfig(backend="ollama", api_base="http://10.0.0.1:11434")
    cloud, named = build(config, {"OLLAMA_API_KEY": "of the cloud"})
    assert (cloud.base_url, cloud.api_key) == ("https://ollama.com", "of the cloud")
    assert (named.base_url, named.api_key) == ("http://10.0.0.1:11434", None)


def test_ollama_makes_vectors_where_it_is_named() -> None:
    config = LLMConfig(backend="ollama", api_base="10.0.0.1", api_key="theirs")
    (named,) = build_embedding_catalog(config, "ollama", {}.get).get_group("ollama").deployments
    assert (named.model, named.base_url, named.api_key, named.supports) == (
        "nomic-embed-text", "10.0.0.1", "theirs", ("embed",),
    )  # fmt: skip


def test_a_model_that_is_named_is_asked_for_everywhere() -> None:
    deployments = build(LLMConfig(backend="ollama", model="llama4"), {"OLLAMA_API_KEY": "k"})
    assert [deployment.model for deployment in deployments] == ["llama4", "llama4"]


@pytest.mark.parametrize(
    ("config", "variables", "provider", "key"),
    [
        (LLMConfig(backend="remote"), OPENAI, "openai", "sk-openai"),
        (LLMConfig(backend="remote"), ANTHROPIC, "anthropic", "sk-ant-1"),
        (LLMConfig(backend="remote"), {**OPENAI, **ANTHROPIC}, "anthropic", "sk-ant-1"),
        (LLMConfig(backend="remote", api_key="sk-ant-2"), OPENAI, "anthropic", "sk-ant-2"),
        (LLMConfig(backend="remote", api_key="sk-2"), ANTHROPIC, "openai", "sk-2"),
        (LLMConfig(backend="remote", api_base="https://api.openai.com/v1"), {}, "openai", None),
        (LLMConfig(backend="remote", api_base="https://api.anthropic.com"), ANTHROPIC, "anthropic", "sk-ant-1"),
        (LLMConfig(backend="remote", api_base="http://gpu:8000/v1", model="m"), {}, "openai_compatible", None),
        (LLMConfig(backend="groq", model="llama4"), {"GROQ_API_KEY": "g"}, "groq", "g"),
        (LLMConfig(backend="mlx", model="m"), {}, "mlx", None),
        (LLMConfig(backend="mlx", model="m", api_base="http://127.0.0.1:8080/v1"), {}, "mlx_server", None),
        (LLMConfig(backend="mock"), {}, "mock", None),
    ],
)
def test_whom_a_backend_asks(config: LLMConfig, variables: dict[str, str], provider: str, key: str | None) -> None:
    (deployment,) = build(config, variables)
    assert (deployment.provider, deployment.api_key, deployment.base_url) == (provider, key, config.api_base)
    assert deployment.model


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LLMConfig(backend="remote"), "LLM_API_KEY is not set"),
        (LLMConfig(backend="groq"), "LLM_MODEL is not set: backend 'groq' has no usual model"),
        (LLMConfig(backend="mlx"), "LLM_MODEL is not set"),
        (LLMConfig(backend="openai"), "OPENAI_API_KEY is not set: set it, or LLM_API_KEY, for backend 'openai'"),
        (LLMConfig(backend="anthropic"), "ANTHROPIC_API_KEY is not set: set it, or LLM_API_KEY"),
        (LLMConfig(backend="groq", model="m"), "GROQ_API_KEY is not set: set it, or LLM_API_KEY"),
        (LLMConfig(backend="remote", api_base="gpu:8000/v1", model="m"), "LLM_API_BASE is 'gpu:8000/v1': set it to an"),
        (LLMConfig(backend="gpt"), "'gpt', which is unknown: use one of anthropic"),
    ],
)
def test_what_is_missing_is_said(config: LLMConfig, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        build(config)


def test_every_backend_makes_a_pool() -> None:
    """As far as it can be made here: some need a server's address or an object."""
    for backend in set(list_backends()) - {"sync", "openai_compatible", "litellm", "mlx", "claude_code"}:
        config = LLMConfig(backend=backend, model="m", api_key="sk-1")
        Pool(build_chat_catalog(config, backend, {}.get))


@pytest.mark.parametrize(
    ("config", "name", "model"),
    [
        (LLMConfig(backend="ollama", model="llama4"), "ollama", "nomic-embed-text"),
        (LLMConfig(backend="ollama"), "mxbai-embed-large", "mxbai-embed-large"),
        (LLMConfig(backend="remote", api_key="sk-1"), "remote", "text-embedding-3-small"),
        (LLMConfig(backend="together", api_key="k"), "bge", "bge"),
    ],
)
def test_vectors_come_of_one_model(config: LLMConfig, name: str, model: str) -> None:
    catalog = build_embedding_catalog(config, name, {"OLLAMA_API_KEY": "k"}.get)
    (deployment,) = catalog.get_group(name).deployments
    assert deployment.model == model


TAKE_IT = (
    "gpt-4o gpt-4.1-mini gpt-oss-120b gpt-5-chat-latest openai/gpt-4o qwen3:8b my-model claude-3-5-sonnet-latest"
    " claude-opus-4-20250514 claude-sonnet-4-5-20250929 claude-opus-4.6"
)
REFUSE_IT = (
    "gpt-5 gpt-5-mini gpt-5.4 gpt-6.1-sol gpt-10 openai/gpt-5 o1 o3-mini o4-mini-2025-04-16 claude-opus-4-7"
    " claude-opus-4-7-20260416 anthropic/claude-opus-4.7 claude-sonnet-5 claude-sonnet-5-5 claude-haiku-12"
)


@pytest.mark.parametrize("model", TAKE_IT.split())
@pytest.mark.parametrize("backend", ["openai", "anthropic", "remote"])
def test_a_model_that_is_named_is_sent_the_temperature(backend: str, model: str) -> None:
    (deployment,) = build(LLMConfig(backend=backend, model=model, api_key="k"))
    assert deployment.takes_temperature


@pytest.mark.parametrize("model", REFUSE_IT.split())
def test_a_model_that_is_known_to_refuse_the_temperature_is_not_sent_it(model: str) -> None:
    (deployment,) = build(LLMConfig(backend="openai", model=model, api_key="k"))
    assert not deployment.takes_temperature


def test_of_the_models_as_shipped_catalogue_and_short_forms_say_the_same() -> None:
    for shipped in load_catalog(DEFAULT_CATALOG, lambda name: f"<{name}>").deployments:
        assert takes_temperature(shipped.model) is shipped.takes_temperature, shipped.name


def test_vectors_of_a_backend_without_a_usual_model() -> None:
    with pytest.raises(InputError, match="name one"):
        build_embedding_catalog(LLMConfig(backend="together"), "together", {}.get)


@pytest.mark.parametrize("seconds", [2.5, 30.0, 120.0, 400.0])
def test_a_request_has_time_for_every_try_at_every_deployment(seconds: float) -> None:
    config = LLMConfig(backend="ollama", timeout_seconds=seconds)
    group = build_chat_catalog(config, "ollama", {"OLLAMA_API_KEY": "k"}.get).get_group("ollama")
    tries = (group.retries + 1) * len(group.deployments)
    assert (tries, {deployment.timeout_seconds for deployment in group.deployments}) == (6, {seconds})
    assert group.timeout_seconds >= max(300.0, tries * seconds + group.retries)


def test_where_answers_are_kept(tmp_path: Path) -> None:
    def find(config: LLMConfig) -> CachePolicy:
        return build_chat_catalog(config, "mock", {}.get).policies.cache

    assert find(LLMConfig(backend="mock")).store == "memory"
    assert find(LLMConfig(backend="mock", enable_cache=False)).store == "none"
    assert find(LLMConfig(backend="mock", cache_dir=tmp_path)) == CachePolicy(store="disk", directory=tmp_path)
