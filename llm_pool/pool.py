"""The pool: both rings, in their order, around the router and the providers."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from llm_pool.call import AttemptCall, AttemptMiddleware, Call, RequestMiddleware, compose
from llm_pool.catalog import Catalog, Deployment
from llm_pool.middleware.ledger import Ledger
from llm_pool.middleware.retry import Retry
from llm_pool.middleware.tracing import Tracing
from llm_pool.middleware.validation import refuse_unusable
from llm_pool.providers.base import Provider, ProviderFactory
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from llm_pool.routing.health import Health
from llm_pool.routing.router import Router
from llm_pool.types import CompletionRequest, CompletionResponse, ProviderAnswer
from shared.clock import Clock, SystemClock
from shared.errors import ConfigurationError
from shared.text import make_storable


class Pool:
    """Answers requests in this process. Connections open at the first call, inside the loop that makes it."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        clock: Clock | None = None,
        retry: Retry | None = None,
        registry: Mapping[str, ProviderFactory] = PROVIDERS,
    ) -> None:
        """
        Raises:
            ConfigurationError: a deployment lacks what its provider needs.
        """
        self._catalog = catalog
        self._clock = clock or SystemClock()
        self._connections = Connections()
        self._providers = {
            deployment.name: _create_provider(deployment, self._connections, registry)
            for deployment in catalog.deployments
        }
        # Outermost first. Retry outside the ledger: each try is written down by itself.
        self.request_ring: tuple[RequestMiddleware, ...] = (Tracing(self._clock), refuse_unusable)
        self.attempt_ring: tuple[AttemptMiddleware, ...] = (retry or Retry(self._clock), Ledger(self._clock))
        router = Router(catalog, compose(self.attempt_ring, self._ask), Health(self._clock), self._clock)
        self._handle = compose(self.request_ring, router)

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        """See `CompletionPool.complete`."""
        group = self._catalog.get_group(request.model)
        entered_at = self._clock.monotonic()
        timeout_seconds = group.timeout_seconds if request.timeout_seconds is None else request.timeout_seconds
        return await self._handle(Call(request, entered_at, deadline=entered_at + timeout_seconds))

    async def aclose(self) -> None:
        await asyncio.gather(*(provider.aclose() for provider in self._providers.values()))
        await self._connections.aclose()

    async def _ask(self, attempt: AttemptCall) -> ProviderAnswer:
        deployment, request = attempt.deployment, attempt.call.request
        if not deployment.takes_temperature:
            request = replace(request, temperature=None)
        left_seconds = attempt.call.deadline - self._clock.monotonic()
        timeout_seconds = min(deployment.timeout_seconds, left_seconds)
        answer = await self._providers[deployment.name].complete(request, timeout_seconds)
        return replace(answer, content=make_storable(answer.content), model=make_storable(answer.model))


def _create_provider(
    deployment: Deployment, connections: Connections, registry: Mapping[str, ProviderFactory]
) -> Provider:
    try:
        create = registry[deployment.provider]
    except KeyError:
        raise ConfigurationError(
            f"Deployment '{deployment.name}' names the unknown provider '{deployment.provider}': "
            f"use one of {', '.join(sorted(registry))}."
        ) from None
    return create(deployment, connections)
