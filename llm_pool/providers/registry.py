"""Which name in a catalogue means which provider. A provider's file, and the SDK it may need, is loaded when used."""

from collections.abc import Mapping
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from llm_pool.catalog import Deployment
from llm_pool.providers.base import Provider, ProviderFactory
from llm_pool.providers.presets import PRESETS

if TYPE_CHECKING:
    from llm_pool.providers.http import Connections


def _load_and_create(factory: str, deployment: Deployment, connections: "Connections") -> Provider:
    create: ProviderFactory = resolve_name(f"llm_pool.providers.{factory}")
    return create(deployment, connections)


def _provider(factory: str) -> ProviderFactory:
    return partial(_load_and_create, factory)


PROVIDERS: Mapping[str, ProviderFactory] = {
    **dict.fromkeys(PRESETS, _provider("openai_compatible:create_openai_compatible")),
    "anthropic": _provider("anthropic:create_anthropic"),
    "claude_code": _provider("claude_code:create_claude_code"),
    "litellm": _provider("litellm:create_litellm"),
    "mlx": _provider("mlx:create_mlx"),
    "mock": _provider("mock:create_mock"),
    "ollama": _provider("ollama:create_ollama"),
    "sync": _provider("sync_adapter:create_sync_adapter"),
}
