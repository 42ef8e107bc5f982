"""A request ring and an attempt ring of a test's own, around scripted providers."""

import asyncio
from collections.abc import Sequence

from llm_pool.call import AttemptCall, AttemptMiddleware, Call, RequestMiddleware, compose
from llm_pool.catalog import Catalog
from llm_pool.middleware.ledger import Ledger
from llm_pool.middleware.retry import Retry
from llm_pool.money.prices import Prices
from llm_pool.providers.http import Connections
from llm_pool.routing.health import Health
from llm_pool.routing.router import Router
from llm_pool.types import Answer, CompletionRequest, Response
from tests.builders import build_call
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import Script, build_registry


class Ring:
    """Retry and Ledger stand where the pool has them; what is under test stands where the test puts it."""

    def __init__(
        self,
        catalog: Catalog,
        scripts: dict[str, Script],
        clock: MovingClock,
        *,
        around_requests: Sequence[RequestMiddleware] = (),
        around_tries: Sequence[AttemptMiddleware] = (),
        around_calls: Sequence[AttemptMiddleware] = (),
    ) -> None:
        """`around_tries` stand directly inside Retry, `around_calls` directly outside Ledger."""
        create = build_registry(scripts, clock)["scripted"]
        self._clock = clock
        self._providers = {each.name: create(each, Connections()) for each in catalog.deployments}
        attempt_ring = (Retry(clock, sleep=clock.sleep), *around_tries, *around_calls, Ledger(clock, Prices(clock)))
        capabilities = {name: provider.capabilities for name, provider in self._providers.items()}
        router = Router(catalog, compose(attempt_ring, self._ask), Health(clock), clock, capabilities=capabilities)
        self._handle = compose(tuple(around_requests), router)
        self.call: Call | None = None
        """The latest."""

    async def answer(self, request: CompletionRequest, **fields: object) -> Response:
        self.call = build_call(request, entered_at=self._clock.monotonic(), **fields)
        return await self._handle(self.call)

    def start(self, request: CompletionRequest) -> asyncio.Task[Response]:
        return asyncio.create_task(self.answer(request))

    async def _ask(self, attempt: AttemptCall) -> Answer:
        return await attempt.call.ask(self._providers[attempt.deployment.name], attempt.deployment, 60.0)
