"""The pool: both rings, in their order, around the router and the providers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeVar, cast

from llm_pool.asking.asking import HEALTH_SECONDS, Asking, TokenCount
from llm_pool.asking.inspection import Inspection
from llm_pool.asks import ask_stream, ask_vectors, ask_whole
from llm_pool.call import (
    DEFAULT_RUN,
    AskProvider,
    AttemptCall,
    AttemptMiddleware,
    Call,
    RequestMiddleware,
    RunConfig,
    compose,
)
from llm_pool.catalog import Catalog, Deployment
from llm_pool.middleware.budget import Budget
from llm_pool.middleware.cache import Cache
from llm_pool.middleware.cooldown import Cooldown
from llm_pool.middleware.ledger import Ledger
from llm_pool.middleware.metrics import ActiveMetrics, AlertMetrics, ErrorMetrics, Meter, NoMeter, RequestMetrics
from llm_pool.middleware.quota import Quota
from llm_pool.middleware.rate_limit import RateLimit
from llm_pool.middleware.retry import Retry
from llm_pool.middleware.tracing import AttemptTracing, Tracing
from llm_pool.middleware.validation import check_bound, refuse_unusable
from llm_pool.money.alerts import AlertLog, AlertSink, AlertWebhook
from llm_pool.money.prices import Prices
from llm_pool.money.settlement import Settlement
from llm_pool.pool_status import PoolStatus
from llm_pool.providers.base import Provider, ProviderFactory
from llm_pool.providers.registry import PROVIDERS
from llm_pool.routing.health import Health
from llm_pool.routing.router import Router
from llm_pool.status.quota import QuotaTracker
from llm_pool.status.status_board import StatusBoard
from llm_pool.stores.bundle import Stores, build_memory_stores
from llm_pool.tokens.counting import TokenCounter
from llm_pool.types import (
    Answer,
    Capability,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Response,
    StreamChunk,
)
from shared.clock import Clock, SystemClock
from shared.errors import ConfigurationError
from shared.tracing import NoTracer, Tracer

if TYPE_CHECKING:
    from llm_pool.providers.http import Connections

MiddlewareT = TypeVar("MiddlewareT")
_CHAT: frozenset[Capability] = frozenset({"chat"})
_CHAT_WITH_TOOLS: frozenset[Capability] = frozenset({"chat", "tools"})
_EMBED: frozenset[Capability] = frozenset({"embed"})


@dataclass(frozen=True, slots=True)
class Instruments:
    """What watches a pool; by default nobody does."""

    meter: Meter | None = None
    tracer: Tracer = NoTracer()  # noqa: RUF009 - it keeps nothing, so one serves all
    shows_content: bool = False
    """Questions and answers stand in the spans."""


class Pool(Asking):
    """Answers requests in this process. Connections open at the first call, inside the loop that makes it."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        stores: Stores | None = None,
        instruments: Instruments | None = None,
        tokens: TokenCounter | None = None,
        clock: Clock | None = None,
        retry: Retry | None = None,
        registry: Mapping[str, ProviderFactory] = PROVIDERS,
    ) -> None:
        """Without `stores` it shares nothing with other pools; those given are closed with it.

        Raises:
            ConfigurationError: a deployment lacks what its provider needs, or a budget could not be kept.
        """
        self._catalog = catalog
        self._clock = clock or SystemClock()
        self._stores = stores or build_memory_stores(catalog.policies, self._clock)
        self._instruments = instruments or Instruments()
        # By name: importing this module does not load an HTTP client yet, making a pool does.
        self._connections: Connections = resolve_name("llm_pool.providers.http:Connections")()
        self._providers = {
            deployment.name: _create_provider(deployment, self._connections, registry)
            for deployment in catalog.deployments
        }
        self._models = {deployment.name: deployment.model for deployment in catalog.deployments}
        self._tokens = tokens or TokenCounter()
        self._inspection = Inspection(catalog, self._providers, self._tokens.count_prompt)
        self._prices = Prices(self._clock)
        self._prices.load(catalog.deployments)
        meter = self._instruments.meter
        self._meter = meter or NoMeter()
        self._meter.watch(catalog.deployments)
        tracker = QuotaTracker(catalog.policies.quota.warn_at, clock=self._clock, meter=meter)
        self._board = StatusBoard(tracker, clock=self._clock, store=self._stores.statuses, meter=meter)
        self._settlement = Settlement(self._stores.budgets, self._build_alert_sinks())
        self.request_ring = self._build_request_ring()
        self.attempt_ring = self._build_attempt_ring(retry or Retry(self._clock), Quota(tracker, self._board))
        self._handle = compose(self.request_ring, self._build_router())

    async def complete(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> CompletionResponse:
        """See `CompletionPool.complete`."""
        call = self._enter(request, partial(ask_whole, request), _find_needs(request), config)
        return cast(CompletionResponse, await self._answer(call))

    async def stream(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> AsyncIterator[StreamChunk]:
        """See `CompletionPool.stream`."""
        pieces: asyncio.Queue[StreamChunk | None] = asyncio.Queue()
        ask = partial(ask_stream, request, pieces.put_nowait)
        call = self._enter(request, ask, _find_needs(request) | {"stream"}, config)
        answering = asyncio.ensure_future(self._answer(call))
        answering.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            response = cast(CompletionResponse, answering.result())
            yield StreamChunk(finish_reason=response.finish_reason, response=response)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def embed(self, request: EmbeddingRequest, config: RunConfig = DEFAULT_RUN) -> EmbeddingResponse:
        """See `CompletionPool.embed`."""
        call = self._enter(request, partial(ask_vectors, request), _EMBED, config)
        return cast(EmbeddingResponse, await self._answer(call))

    def runs_foreign_code(self, model: str) -> bool:
        """See `CompletionPool.runs_foreign_code`."""
        return self._inspection.runs_foreign_code(model)

    async def count_tokens(self, request: CompletionRequest) -> TokenCount:
        """See `AskablePool`; so the next two."""
        return await self._inspection.count_tokens(request)

    async def health(self, timeout_seconds: float = HEALTH_SECONDS) -> Mapping[str, bool]:
        return await self._inspection.health(timeout_seconds)

    async def get_status(self) -> PoolStatus:
        return self._board.get_status()

    async def aclose(self) -> None:
        """What is under way beside the calls is written down first, where it is to be kept."""
        await self._settlement.aclose()
        await self._board.aclose()
        await self._stores.aclose()
        await asyncio.gather(*(provider.aclose() for provider in self._providers.values()))
        await self._connections.aclose()
        # It may wait for what it still has to send.
        await asyncio.to_thread(self._instruments.tracer.close)

    def _build_request_ring(self) -> tuple[RequestMiddleware, ...]:
        """Outermost first. A hit of the cache costs nothing; one hold of the budget covers all fallbacks."""
        policies, stores, instruments = self._catalog.policies, self._stores, self._instruments
        return (
            Tracing(self._clock, instruments.tracer, shows_content=instruments.shows_content),
            *self._if_counted(RequestMetrics),
            refuse_unusable,
            Cache(stores.answers, policies.cache, self._catalog, self._clock),
            Budget(stores.budgets, policies.budget, self._prices, self._catalog, self._clock, self._settlement),
        )

    def _build_attempt_ring(self, retry: Retry, quota: Quota) -> tuple[AttemptMiddleware, ...]:
        """Outermost first. Each try asks for admission, takes its own permit, and is written down by itself."""
        return (
            retry,
            *self._if_counted(ErrorMetrics),
            Cooldown(self._stores.cooldowns, self._catalog.policies.cooldown, self._clock),
            RateLimit(self._stores.permits, self._clock),
            quota,
            *self._if_counted(ActiveMetrics),
            AttemptTracing(self._instruments.tracer),
            Ledger(self._clock, self._prices),
        )

    def _if_counted(self, build: Callable[[Meter], MiddlewareT]) -> Iterator[MiddlewareT]:
        """Nothing where nobody would read it: each ring costs each call."""
        if self._instruments.meter is not None:
            yield build(self._instruments.meter)

    def _build_router(self) -> Router:
        return Router(
            self._catalog,
            compose(self.attempt_ring, self._ask),
            Health(self._clock),
            self._clock,
            capabilities={name: provider.capabilities for name, provider in self._providers.items()},
            find_price=self._prices.find,
        )

    def _build_alert_sinks(self) -> Sequence[AlertSink]:
        url = self._catalog.policies.budget.webhook_url
        webhooks = () if url is None else (AlertWebhook(url, self._connections),)
        return AlertLog(), AlertMetrics(self._meter), *webhooks

    async def _answer(self, call: Call) -> Response:
        response = await self._handle(call)
        if response.usage is not None and call.attempts:
            model = self._models[response.deployment]
            self._tokens.observe(call.request, response.usage.prompt_tokens, model)
        return response

    def _enter(
        self,
        request: CompletionRequest | EmbeddingRequest,
        ask: AskProvider,
        needs: frozenset[Capability],
        config: RunConfig,
    ) -> Call:
        group = self._catalog.get_group(request.model)
        check_bound(request)
        entered_at = self._clock.monotonic()
        timeout_seconds = group.timeout_seconds if request.timeout_seconds is None else request.timeout_seconds
        return Call(request, ask, needs, self._tokens.estimate, entered_at, entered_at + timeout_seconds, config)

    def _ask(self, attempt: AttemptCall) -> Awaitable[Answer]:
        deployment = attempt.deployment
        left_seconds = attempt.call.deadline - self._clock.monotonic()
        timeout_seconds = min(deployment.timeout_seconds, left_seconds)
        return attempt.call.ask(self._providers[deployment.name], deployment, timeout_seconds)


def _find_needs(request: CompletionRequest) -> frozenset[Capability]:
    return _CHAT_WITH_TOOLS if request.tools else _CHAT


def _create_provider(
    deployment: Deployment, connections: "Connections", registry: Mapping[str, ProviderFactory]
) -> Provider:
    try:
        create = registry[deployment.provider]
    except KeyError:
        raise ConfigurationError(
            f"Deployment '{deployment.name}' names the unknown provider '{deployment.provider}': "
            f"use one of {', '.join(sorted(registry))}."
        ) from None
    return create(deployment, connections)
