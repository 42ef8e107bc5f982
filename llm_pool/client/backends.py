"""What one backend's name means as a catalogue: its deployments for chats, and those for vectors. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, Lookup, load_catalog
from llm_pool.client.config import LLMConfig
from llm_pool.client.model_names import takes_temperature
from llm_pool.policies import CachePolicy, Policies
from llm_pool.providers.ollama_dialect import DEFAULT_EMBEDDING_MODEL
from llm_pool.providers.presets import KEY_VARIABLES, PRESETS
from llm_pool.providers.registry import PROVIDERS
from shared.errors import ConfigurationError, InputError

EMBEDDING_MODELS: Final[Mapping[str, str]] = {
    "mock": "mock",
    "ollama": DEFAULT_EMBEDDING_MODEL,
    "openai": "text-embedding-3-small",
}
"""Asked for vectors where none is named."""

BETWEEN_TRIES_SECONDS: Final = 60.0
"""What a request has for its waits between them all."""

OLLAMA_LOCAL: Final = "http://127.0.0.1:11434"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a backend is asked to serve."""

    config: LLMConfig
    model: str | None
    """None is the backend's own choice."""
    lookup: Lookup


Build = Callable[[Wanted], tuple[Deployment, ...]]


def list_backends() -> tuple[str, ...]:
    return tuple(sorted({*PROVIDERS, *_SPECIAL}))


def build_chat_catalog(config: LLMConfig, name: str, lookup: Lookup) -> Catalog:
    """One group of this name: that of the backend stands for its usual model, any other for the model so called.

    Raises:
        ConfigurationError: the backend is not known, or lacks what it needs; the message says what to set.
    """
    backend = _check(config)
    model = config.model if name == backend else name
    build = _SPECIAL.get(backend, _build_registered)
    return _build_catalog(config, name, build(Wanted(config, model, lookup)))


def build_embedding_catalog(config: LLMConfig, name: str, lookup: Lookup) -> Catalog:
    """Likewise for vectors: one model only, as vectors of different ones cannot be compared.

    Raises:
        InputError: the backend has no usual model for it, and none is named.
    """
    backend = _check(config)
    model = EMBEDDING_MODELS.get(_choose_provider(config, lookup)) if name == backend else name
    if model is None:
        raise InputError("model", f"backend '{backend}' has no usual model for embeddings", "name one")
    build = _EMBEDDING.get(backend, _SPECIAL.get(backend, _build_registered))
    return _build_catalog(config, name, build(Wanted(config, model, lookup)))


def _check(config: LLMConfig) -> str:
    if config.backend not in list_backends():
        raise ConfigurationError(
            f"LLM_BACKEND is '{config.backend}', which is unknown: use one of {', '.join(list_backends())}."
        )
    return config.backend


def _build_catalog(config: LLMConfig, name: str, deployments: tuple[Deployment, ...]) -> Catalog:
    bounded = tuple(replace(each, timeout_seconds=config.timeout_seconds) for each in deployments)
    group = ModelGroup(name, bounded, strategy="priority")
    patient = replace(group, timeout_seconds=_choose_bound(group, config.timeout_seconds))
    return Catalog({name: patient}, policies=Policies(cache=build_cache_policy(config)))


def _choose_bound(group: ModelGroup, attempt_seconds: float) -> float:
    """Time for every try at every deployment, so that one who hangs does not cost the next its turn."""
    tries = (group.retries + 1) * len(group.deployments)
    return max(group.timeout_seconds, tries * attempt_seconds + BETWEEN_TRIES_SECONDS)


def build_cache_policy(config: LLMConfig) -> CachePolicy:
    if not config.enable_cache:
        return CachePolicy(store="none")
    return CachePolicy() if config.cache_dir is None else CachePolicy(store="disk", directory=config.cache_dir)


def _build_registered(wanted: Wanted) -> tuple[Deployment, ...]:
    assert wanted.config.backend is not None, "checked before"
    return (_deploy(wanted.config.backend, wanted),)


def _build_ollama(wanted: Wanted) -> tuple[Deployment, ...]:
    """The cloud first, where there is a key for it; one that is given with an address goes there and nowhere else."""
    config, cloud = wanted.config, _list_shipped()["ollama-cloud"]
    named = _build_named_ollama(wanted)
    key = config.api_key or wanted.lookup(KEY_VARIABLES["ollama"])
    if not key or (config.api_key and config.api_base):
        return named
    return (replace(cloud, api_key=key, model=wanted.model or cloud.model), *named)


def _build_named_ollama(wanted: Wanted) -> tuple[Deployment, ...]:
    """At the address that is named, as Ollama reads it: without a scheme its usual port is meant; else here."""
    config, shipped = wanted.config, _list_shipped()["ollama-local"]
    return (
        replace(
            shipped,
            base_url=config.api_base or wanted.lookup("OLLAMA_HOST") or OLLAMA_LOCAL,
            api_key=config.api_key if config.api_base else None,
            only_if_reachable=False,
            supports=None,
            model=wanted.model or shipped.model,
        ),
    )


def _build_ollama_for_vectors(wanted: Wanted) -> tuple[Deployment, ...]:
    """Never the cloud, which serves none."""
    return tuple(replace(named, supports=("embed",)) for named in _build_named_ollama(wanted))


def _build_mlx(wanted: Wanted) -> tuple[Deployment, ...]:
    """In this process, or at the server that is named."""
    return (_deploy("mlx" if wanted.config.api_base is None else "mlx_server", wanted),)


def _build_remote(wanted: Wanted) -> tuple[Deployment, ...]:
    return (_deploy(_choose_provider(wanted.config, wanted.lookup), wanted),)


_SPECIAL: Final[Mapping[str, Build]] = {"mlx": _build_mlx, "ollama": _build_ollama, "remote": _build_remote}
_EMBEDDING: Final[Mapping[str, Build]] = {"ollama": _build_ollama_for_vectors}


def _deploy(provider: str, wanted: Wanted) -> Deployment:
    shipped = next((each for each in _list_shipped().values() if each.provider == provider), None)
    model = wanted.model or (shipped.model if shipped else {"mock": "mock"}.get(provider))
    if model is None:
        raise ConfigurationError(f"LLM_MODEL is not set: backend '{wanted.config.backend}' has no usual model.")
    key, address = wanted.config.api_key or _find_key(provider, wanted.lookup), wanted.config.api_base
    if key is None and address is None and _needs_key(provider):
        raise ConfigurationError(
            f"{KEY_VARIABLES[provider]} is not set: set it, or LLM_API_KEY, for backend '{wanted.config.backend}'."
        )
    return Deployment(
        name=provider,
        provider=provider,
        model=model,
        base_url=address,
        api_key=key,
        takes_temperature=takes_temperature(model),
    )


def _needs_key(provider: str) -> bool:
    return provider == "anthropic" or (provider in PRESETS and PRESETS[provider].needs_key)


def _find_key(provider: str, lookup: Lookup) -> str | None:
    variable = KEY_VARIABLES.get(provider)
    return None if variable is None else lookup(variable)


def _choose_provider(config: LLMConfig, lookup: Lookup) -> str:
    """Of backend `remote`: by its address, else by its key, else by whose key is set."""
    if config.backend != "remote":
        return config.backend or ""
    if config.api_base is not None and not config.api_base.startswith(("http://", "https://")):
        raise ConfigurationError(f"LLM_API_BASE is '{config.api_base}': set it to an http:// or https:// URL.")
    host = urlsplit(config.api_base or "").hostname or ""
    if host.endswith("anthropic.com") or (config.api_key or "").startswith("sk-ant-"):
        return "anthropic"
    if host:
        return "openai" if host.endswith("openai.com") else "openai_compatible"
    if config.api_key is not None:
        return "openai"
    for provider in ("anthropic", "openai"):
        if _find_key(provider, lookup) is not None:
            return provider
    raise ConfigurationError("LLM_API_KEY is not set: set it, or LLM_API_BASE, ANTHROPIC_API_KEY or OPENAI_API_KEY.")


@cache
def _list_shipped() -> Mapping[str, Deployment]:
    """By name; whatever variables they need count as set, as only their models matter here."""
    catalog = load_catalog(DEFAULT_CATALOG, lambda name: f"<{name}>")
    return {deployment.name: deployment for deployment in catalog.deployments}
