"""The budget around a router, with retries, a ledger and scripted providers inside, and stores that misbehave."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from llm_pool.asks import ask_stream, ask_vectors, ask_whole
from llm_pool.call import AskProvider, AttemptCall, Call, RunConfig, TokenEstimate, compose
from llm_pool.catalog import Catalog, ModelGroup, Price
from llm_pool.middleware.budget import Budget
from llm_pool.middleware.ledger import Ledger
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.money.alerts import Alert
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.money.prices import Prices
from llm_pool.money.settlement import Settlement
from llm_pool.policies import BudgetPolicy
from llm_pool.providers.http import Connections
from llm_pool.routing.health import Health
from llm_pool.routing.router import Router
from llm_pool.stores.budgets.base import Account, AlertDue, BudgetStore, Full, Hold, Spending
from llm_pool.stores.budgets.memory import MemoryBudgetStore
from llm_pool.types import Answer, Capability, CompletionRequest, EmbeddingRequest, Response
from shared.errors import LLMStoreUnavailableError
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy

CENT_A_TOKEN = Price(Decimal(10_000), Decimal(10_000))
FREE = Price(Decimal(0), Decimal(0))
ESTIMATE = TokenEstimate(prompt_tokens=3, max_completion_tokens=2)
"""Exactly what the scripted provider uses, which costs five cents."""
FIVE_CENTS = Decimal("0.05")


class AwayStore(MemoryBudgetStore):
    """Away for so many steps."""

    def __init__(self, clock: MovingClock, reserving: int = 0, settling: int = 0) -> None:
        super().__init__(clock)
        self.reserving = reserving
        self.settling = settling

    async def reserve(self, accounts: Sequence[Account], usd: Decimal, lease_seconds: float) -> Hold | Full:
        self.reserving -= 1
        if self.reserving >= 0:
            raise LLMStoreUnavailableError("away")
        return await super().reserve(accounts, usd, lease_seconds)

    async def settle(self, hold: Hold, spent_usd: Decimal) -> Sequence[AlertDue]:
        self.settling -= 1
        if self.settling >= 0:
            raise LLMStoreUnavailableError("away")
        return await super().settle(hold, spent_usd)


class SlowStore(MemoryBudgetStore):
    """Takes its time to settle, as one across a network does."""

    may_wait = True

    async def settle(self, hold: Hold, spent_usd: Decimal) -> Sequence[AlertDue]:
        await asyncio.sleep(0.01)
        return await super().settle(hold, spent_usd)


@dataclass
class Bell:
    """Keeps the alerts it took."""

    taken: list[Alert] = field(default_factory=list)

    def take(self, alert: Alert) -> None:
        self.taken.append(alert)

    async def aclose(self) -> None:
        pass


class Yard:
    """The budget around a router, with retries, a ledger and scripted providers inside."""

    def __init__(
        self,
        catalog: Catalog,
        scripts: Mapping[str, Script],
        policy: BudgetPolicy | None = None,
        store: BudgetStore | None = None,
        clock: MovingClock | None = None,
    ) -> None:
        self.clock = clock or MovingClock()
        self.store = store or MemoryBudgetStore(self.clock)
        self.bell = Bell()
        self.prices = Prices(self.clock)
        self.settlement = Settlement(self.store, [self.bell], self.clock.sleep)
        self.calls: list[Call] = []
        policy = policy or BudgetPolicy()
        self.budget = Budget(self.store, policy, self.prices, catalog, self.clock, self.settlement)
        create = build_registry(scripts)["scripted"]
        self._providers = {d.name: create(d, Connections()) for d in catalog.deployments}
        retry = Retry(self.clock, Backoff(draw=lambda low, _: low), self.clock.sleep)
        attempt_ring = compose((retry, Ledger(self.clock, self.prices)), self._ask)
        capabilities = {name: provider.capabilities for name, provider in self._providers.items()}
        router = Router(catalog, attempt_ring, Health(self.clock), self.clock, capabilities=capabilities)
        self._handle = compose((self.budget,), router)

    async def complete(self, request: CompletionRequest, tracker: BudgetTracker | None = None) -> Response:
        return await self._call(request, partial(ask_whole, request), {"chat"}, tracker)

    async def stream(self, request: CompletionRequest, tracker: BudgetTracker | None = None) -> Response:
        asking = partial(ask_stream, request, lambda _: None)
        return await self._call(request, asking, {"chat", "stream"}, tracker)

    async def embed(self, request: EmbeddingRequest, tracker: BudgetTracker | None = None) -> Response:
        return await self._call(request, partial(ask_vectors, request), {"embed"}, tracker)

    async def spent(self, account: str = "day") -> Decimal:
        return (await self.read(account)).spent_usd

    async def read(self, account: str = "day") -> Spending:
        return await self.store.read(account)

    async def _ask(self, attempt: AttemptCall) -> Answer:
        return await attempt.call.ask(self._providers[attempt.deployment.name], attempt.deployment, 60)

    async def _call(
        self,
        request: CompletionRequest | EmbeddingRequest,
        asking: AskProvider,
        needs: set[Capability],
        tracker: BudgetTracker | None,
    ) -> Response:
        now = self.clock.monotonic()
        config = RunConfig(budget_tracker=tracker)
        call = Call(request, asking, frozenset(needs), lambda _: ESTIMATE, now, now + 300, config)
        self.calls.append(call)
        return await self._handle(call)


def build_yard(*scripts: Script, price: Price | None = CENT_A_TOKEN, **fields: object) -> Yard:
    """Deployments `a`, `b`, … of one group, asked in this order, each once."""
    named = dict(zip("abc", scripts or (Script(),), strict=False))
    deployments = tuple(deploy(name, price=price) for name in named)
    catalog = build_catalog(ModelGroup("fast", deployments, retries=0, strategy="priority"))
    return Yard(catalog, named, **fields)


def cap(usd: str, **fields: object) -> BudgetPolicy:
    return BudgetPolicy(daily_usd=Decimal(usd), **fields)
