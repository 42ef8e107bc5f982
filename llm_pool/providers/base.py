"""The seam every provider fills, so that the pool needs to know none of them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from llm_pool.catalog import Deployment
from llm_pool.providers.sse import EventReader
from llm_pool.types import (
    Capability,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    ProviderAnswer,
    ProviderChunk,
    ToolCallDelta,
)
from shared.errors import ConfigurationError, LLMError, LLMUnsupportedError

if TYPE_CHECKING:  # what speaks HTTP is half of the pool's import, and loaded by the first pool that is made
    from llm_pool.providers.http import Connections, OpenAnswer


class Provider(Protocol):
    """One deployment, ready to be asked. Every call asks once, without retries, and raises an `LLMError` of the class
    that says what may be done about it, with what the provider said of our quotas.
    """

    capabilities: frozenset[Capability]
    """What its dialect can do; nothing else is ever asked of it."""
    runs_foreign_code: bool
    """A call may run code in this process that came with a catalogue or a registry, and not with this package: it may
    kill the process, block it, or fill its memory."""

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        """The whole answer, within `timeout_seconds`."""

    def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        """The answer in pieces; who reads them sets the bounds, and closing the generator closes the socket.

        It ends without an error where the provider's answer just ended: whether that was the whole of it is told by
        the finish reason, which is given when the dialect's terminal marker was seen and not before.
        """

    async def embed(self, request: EmbeddingRequest, timeout_seconds: float) -> EmbeddingAnswer:
        """A vector for each input."""

    async def count_tokens(self, request: CompletionRequest, timeout_seconds: float) -> int:
        """Tokens of the prompt, as the provider counts them."""

    async def is_healthy(self, timeout_seconds: float) -> bool:
        """Somebody there answers; never raises."""

    async def aclose(self) -> None:
        """Close what this provider opened itself; shared connections are the pool's."""


class BaseProvider:
    """What a provider that lacks a capability answers; each fills in what it has."""

    capabilities: frozenset[Capability] = frozenset({"chat"})
    runs_foreign_code: bool = True
    """Until it says otherwise: of a class that we do not know, nothing is known."""

    def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        raise LLMUnsupportedError(f"this provider has no streams; group '{request.model}' needs one that has")

    async def embed(self, request: EmbeddingRequest, timeout_seconds: float) -> EmbeddingAnswer:  # noqa: ARG002 - the seam's signature
        raise LLMUnsupportedError(
            f"this provider has no embeddings; let group '{request.model}' hold deployments of openai or ollama"
        )

    async def count_tokens(self, request: CompletionRequest, timeout_seconds: float) -> int:  # noqa: ARG002 - likewise
        raise LLMUnsupportedError(f"this provider counts no tokens; group '{request.model}' is estimated instead")

    async def is_healthy(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - likewise
        return True

    async def aclose(self) -> None:
        """Nothing of its own was opened."""


ProviderFactory = Callable[[Deployment, "Connections"], Provider]
"""Raises ConfigurationError when the deployment lacks what the provider needs; opens nothing yet."""


def require_address(deployment: Deployment, default_base_url: str | None, *, needs_key: bool = True) -> str:
    """The deployment's base URL, or the provider's usual one; no one answers at a public one without a key.

    Raises:
        ConfigurationError: there is none, it is no HTTP address, or the key is missing.
    """
    base_url = deployment.base_url or default_base_url
    if base_url is None or not base_url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"`base_url` of deployment '{deployment.name}' is {base_url!r}: set it to an http:// or https:// URL."
        )
    if needs_key and deployment.base_url is None and deployment.api_key is None:
        raise ConfigurationError(
            f"`api_key` of deployment '{deployment.name}' is not set: set it to '${{NAME_OF_A_VARIABLE}}'."
        )
    return base_url


async def is_somebody_there(
    connections: "Connections", url: str, headers: Mapping[str, str], timeout_seconds: float
) -> bool:
    """Whether a GET is answered, by somebody who takes our key and is not down; never raises."""
    try:
        answer = await connections.get_json(url, headers, timeout_seconds)
    except LLMError:
        return False
    return answer.status < 500 and answer.status not in (401, 403)


def as_chunk(answer: ProviderAnswer) -> ProviderChunk:
    """The stream of a provider that said all at once."""
    tool_calls = tuple(
        ToolCallDelta(index, call.id, call.name, call.arguments, call.provider_data)
        for index, call in enumerate(answer.tool_calls)
    )
    return ProviderChunk(
        answer.content,
        tool_calls,
        answer.finish_reason,
        answer.usage,
        answer.model,
        answer.quota,
        answer.cost_usd,
    )


async def relay_events(
    opening: AbstractAsyncContextManager["OpenAnswer"],
    begin: Callable[["OpenAnswer"], Awaitable[ProviderChunk]],
    read: Callable[[bytes], ProviderChunk | None],
) -> AsyncGenerator[ProviderChunk, None]:
    """A stream of server-sent events, each read by the dialect's own reader, who gives None for what says nothing."""
    events = EventReader()
    async with opening as answer:
        yield await begin(answer)
        async for piece in answer:
            for event in events.feed(piece):
                if (chunk := read(event)) is not None:
                    yield chunk
        for event in events.finish():
            if (chunk := read(event)) is not None:
                yield chunk
