"""One provider, asked through its seam and served by a real HTTP server: what the suites over all of them share."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_pool.asks import ask_stream, ask_whole
from llm_pool.catalog import Deployment
from llm_pool.providers.base import Provider
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from llm_pool.types import ChatMessage, CompletionRequest, ProviderAnswer, StreamChunk
from shared import errors
from tests.fakes.dialects import Dialect
from tests.fakes.provider_server import Behaviour, ProviderServer, serve

MESSAGES = (ChatMessage("system", "be brief"), ChatMessage("user", "hello"))
REQUEST = CompletionRequest("fast", MESSAGES)


def describe(server: ProviderServer, name: str = "one", api_key: str | None = "secret", **fields: Any) -> Deployment:
    values = {
        "provider": server.dialect.provider,
        "model": "model-as-configured",
        "base_url": server.base_url,
        **fields,
    }
    return Deployment(name=name, api_key=api_key, **values)


@asynccontextmanager
async def opened(
    dialect: Dialect, connections: Connections | None = None, **fields: Any
) -> AsyncIterator[tuple[Provider, ProviderServer]]:
    """`fields` are those of the deployment."""
    connections = connections or Connections()
    async with serve(dialect) as server:
        deployment = describe(server, **fields)
        provider = PROVIDERS[deployment.provider](deployment, connections)
        try:
            yield provider, server
        finally:
            await provider.aclose()
            await connections.aclose()


async def ask(provider: Provider, timeout_seconds: float = 5.0, **fields: Any) -> ProviderAnswer:
    """A whole answer, as the pool takes it."""
    request = CompletionRequest("fast", **{"messages": MESSAGES, **fields})
    return await ask_whole(request, provider, Deployment("one", "any", "model-as-configured"), timeout_seconds)


async def read(
    provider: Provider,
    into: list[StreamChunk] | None = None,
    *,
    first_seconds: float = 5.0,
    next_seconds: float = 5.0,
    **fields: Any,
) -> ProviderAnswer:
    """The whole of a stream, as the pool puts it together; `into` takes the pieces that were handed on."""
    pieces = [] if into is None else into
    deployment = Deployment("one", "any", "model-as-configured", timeout_seconds=next_seconds)
    request = CompletionRequest("fast", **{"messages": MESSAGES, **fields})
    return await ask_stream(request, pieces.append, provider, deployment, first_seconds)


async def fail(dialect: Dialect, behave: Behaviour, **fields: Any) -> errors.LLMError:
    """What a whole answer failed with."""
    return await _fail(dialect, behave, ask, fields)


async def fail_stream(dialect: Dialect, behave: Behaviour, **fields: Any) -> errors.LLMError:
    """What a stream failed with."""
    return await _fail(dialect, behave, read, fields)


async def _fail(dialect: Dialect, behave: Behaviour, call: Callable[..., Any], fields: Any) -> errors.LLMError:
    async with opened(dialect, **fields) as (provider, server):
        server.behave = behave
        with pytest.raises(errors.LLMError) as caught:
            await call(provider)
        return caught.value


async def sent(dialect: Dialect, request: CompletionRequest = REQUEST, **fields: Any) -> dict[str, Any]:
    """The body of a request as it came in."""
    async with opened(dialect, **fields) as (provider, server):
        await provider.complete(request, 5)
        return server.received[0].body
