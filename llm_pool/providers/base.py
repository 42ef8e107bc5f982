"""The seam every provider fills, so that the pool needs to know none of them."""

from collections.abc import Callable
from typing import Protocol

from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.types import CompletionRequest, ProviderAnswer
from shared.errors import ConfigurationError


class Provider(Protocol):
    """One deployment, ready to be asked."""

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        """Ask once, without retries.

        Raises:
            LLMError: of the class that says what may be done about it.
        """

    async def aclose(self) -> None:
        """Close what this provider opened itself; shared connections are the pool's."""


ProviderFactory = Callable[[Deployment, Connections], Provider]
"""Raises ConfigurationError when the deployment lacks what the provider needs; opens nothing yet."""


def require_address(deployment: Deployment, default_base_url: str | None) -> str:
    """The deployment's base URL, or the provider's public one, which no one answers at without a key.

    Raises:
        ConfigurationError: there is none, it is no HTTP address, or the key is missing.
    """
    base_url = deployment.base_url or default_base_url
    if base_url is None or not base_url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"`base_url` of deployment '{deployment.name}' is {base_url!r}: set it to an http:// or https:// URL."
        )
    if deployment.base_url is None and deployment.api_key is None:
        raise ConfigurationError(
            f"`api_key` of deployment '{deployment.name}' is not set: set it to '${{NAME_OF_A_VARIABLE}}'."
        )
    return base_url
