"""The one place that knows which providers there are."""

from collections.abc import Mapping
from functools import partial

from llm_pool.providers.anthropic import create_anthropic
from llm_pool.providers.base import ProviderFactory
from llm_pool.providers.mock import create_mock
from llm_pool.providers.ollama import create_ollama
from llm_pool.providers.openai_compatible import create_openai_compatible

PROVIDERS: Mapping[str, ProviderFactory] = {
    "anthropic": create_anthropic,
    "groq": partial(create_openai_compatible, default_base_url="https://api.groq.com/openai/v1"),
    "mock": create_mock,
    "ollama": create_ollama,
    # OpenAI's reasoning models refuse `max_tokens`; many who speak its dialect know nothing else.
    "openai": partial(
        create_openai_compatible,
        default_base_url="https://api.openai.com/v1",
        max_tokens_field="max_completion_tokens",
    ),
    "openai_compatible": create_openai_compatible,
    "together": partial(create_openai_compatible, default_base_url="https://api.together.xyz/v1"),
}
