"""Whole pools: every middleware, stores in memory or on a Redis, and real HTTP servers behind them.

What a call may leave behind is read from the stores themselves, by an observer of its own.
"""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from aiohttp import web

from llm_pool.catalog import Catalog, Deployment, Limits, ModelGroup, Price
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.policies import BudgetPolicy, CachePolicy, CooldownPolicy, Policies
from llm_pool.pool import Instruments, Pool
from llm_pool.status.metrics import Metrics
from llm_pool.stores.bundle import Stores, build_memory_stores
from llm_pool.stores.cooldowns.base import CooldownState, build_key
from llm_pool.stores.on_redis import build_redis_stores
from llm_pool.types import ChatMessage, CompletionRequest
from shared.clock import SystemClock
from shared.redis_client import open_redis
from tests.fakes.provider_server import OPENAI, Behaviour, ProviderServer, send_json, send_stream, serve

PRICE = Price(Decimal(0), Decimal(2_000))
"""Of answers alone, so that the bound of a request is what its answer costs, see `COST`."""
ANSWER_TOKENS = 5
"""Of every answer of the servers."""
COST = Decimal("0.01")
LIMITS = Limits(requests_per_minute=10_000, tokens_per_minute=1_000_000, in_flight=1_000)
POLICIES = Policies(
    budget=BudgetPolicy(daily_usd=Decimal(1_000), tenant_daily_usd=Decimal(1_000)),
    cooldown=CooldownPolicy(first_seconds=0.02, ramp_seconds=0.3),
)


def ask(content: str = "hello", model: str = "fast", **fields: Any) -> CompletionRequest:
    """Cold, so that the cache is asked too."""
    values = {"tenant_id": "acme", "temperature": 0.0, "max_tokens": ANSWER_TOKENS, "timeout_seconds": 20.0}
    return CompletionRequest(model, (ChatMessage("user", content),), **{**values, **fields})


def answer(text: str = "fine", headers: Mapping[str, str] | None = None) -> Behaviour:
    """A chat whole or as a stream, or vectors: as it is asked."""

    async def behave(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        if "input" in body:
            data = [{"index": index, "embedding": [0.5, 1.0]} for index, _ in enumerate(body["input"])]
            usage = {"prompt_tokens": 3, "total_tokens": 3}
            return web.json_response({"model": "m", "data": data, "usage": usage}, headers=headers)
        if body.get("stream"):
            return await send_stream(OPENAI, OPENAI.stream(*text), headers=headers)(request)
        return await send_json(OPENAI.answer(text, "stop"), headers=headers)(request)

    return behave


def refuse(status: int, headers: Mapping[str, str] | None = None) -> Behaviour:
    return send_json(OPENAI.error("no"), status, headers)


def first(*behaviours: Behaviour) -> Behaviour:
    """One after another, the last one for ever."""
    left = list(behaviours)

    async def behave(request: web.Request) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return behave


def after(seconds: float, behaviour: Behaviour) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await behaviour(request)

    return behave


@dataclass
class Leavings:
    """What calls left behind; nothing of it may remain when none is under way."""

    in_flight: dict[str, int]
    held_usd: Decimal
    leases: list[str]
    active: dict[str, float]
    at_servers: int

    @property
    def are_none(self) -> bool:
        counts = (*self.in_flight.values(), *self.active.values(), self.held_usd, len(self.leases), self.at_servers)
        return not any(counts)


@dataclass
class Yard:
    """Servers by deployment, pools that ask them, and what they share."""

    redis_url: str | None
    stack: AsyncExitStack
    policies: Policies = POLICIES
    servers: dict[str, ProviderServer] = field(default_factory=dict)
    limits: Limits = LIMITS
    fields: dict[str, Any] = field(default_factory=dict)
    """Of every deployment."""
    metrics: Metrics = field(default_factory=Metrics)
    complaints: list[Mapping[str, Any]] = field(default_factory=list)
    """What the event loop had to complain of."""
    minds_leases: bool = True
    """Of the cache. Where Redis is away when one is to be given up, it ends by itself ten seconds later."""
    _limits_by_name: dict[str, Limits] = field(default_factory=dict)
    _memory: Stores | None = None
    _observer: Stores | None = None

    async def serve(self, *names: str) -> None:
        for name in names:
            self.servers[name] = await self.stack.enter_async_context(serve(OPENAI))
            self.servers[name].behave = answer()

    def deploy(self, name: str, **fields: Any) -> Deployment:
        values = {
            "model": f"{name}-model",
            "price": PRICE,
            "limits": self.limits,
            "timeout_seconds": 5.0,
            **self.fields,
            **fields,
        }
        self._limits_by_name[name] = values["limits"]
        base_url = self.servers[name].base_url
        return Deployment(name=name, provider="openai_compatible", base_url=base_url, api_key="k", **values)

    def group(self, *names: str, **fields: Any) -> Catalog:
        """One group `fast` of these deployments, asked in this order."""
        deployments = tuple(self.deploy(name) for name in names or self.servers)
        return self.catalog(ModelGroup("fast", **{"deployments": deployments, "strategy": "priority", **fields}))

    def catalog(self, *groups: ModelGroup) -> Catalog:
        return Catalog({group.name: group for group in groups}, policies=self.policies)

    def open(self, catalog: Catalog | None = None, *, redis_url: str | None = None) -> Pool:
        """One more pool on the same stores, as another process has it; in memory they are shared as they are."""
        catalog = catalog or self.group()
        retry = Retry(SystemClock(), Backoff(first_seconds=0.01))
        pool = Pool(catalog, stores=self._open_stores(redis_url), retry=retry, instruments=Instruments(self.metrics))
        self.stack.push_async_callback(pool.aclose)
        return pool

    @property
    def observer(self) -> Stores:
        """A look into the stores that no pool knows of."""
        if self._observer is None:
            self._observer = self._open_stores()
            self.stack.push_async_callback(self._observer.aclose)
        return self._observer

    async def read_leavings(self) -> Leavings:
        in_flight = {}
        for name in self.servers:
            in_flight[name] = (await self.read_permits(name))["in_flight"]
        return Leavings(
            in_flight,
            (await self.observer.budgets.read("day")).held_usd,
            await self._list_leases(),
            {labels["provider"]: value for labels, value in self._read_metric("llm_active_requests")},
            sum(server.in_flight for server in self.servers.values()),
        )

    async def check_nothing_is_left(self, seconds: float = 1.0) -> None:
        """What a cancelled call gives back is on its way for some milliseconds."""
        until = asyncio.get_running_loop().time() + seconds
        while not (leavings := await self.read_leavings()).are_none:
            assert asyncio.get_running_loop().time() < until, leavings
            await asyncio.sleep(0.002)

    async def read_permits(self, name: str) -> Mapping[str, int]:
        limits = self._limits_by_name.get(name, self.limits)
        readings = await self.observer.permits.read(name, replace(limits, in_flight=limits.in_flight or 1_000))
        return {reading.cell: reading.used for reading in readings}

    async def spent(self, account: str = "day") -> Decimal:
        return (await self.observer.budgets.read(account)).spent_usd

    async def read_cooldown(self, deployment: Deployment) -> CooldownState:
        return await self.observer.cooldowns.read(build_key(deployment))

    async def open_half(self, deployment: Deployment) -> None:
        """It was cooling, and its time is over: the next call is the probe."""
        await self.observer.cooldowns.cool(build_key(deployment), 0.001)
        await asyncio.sleep(0.002)

    async def wait_until_asked(self, calls: int, seconds: float = 2.0) -> None:
        """By so many calls in all: what each of them did before is then done."""
        until = asyncio.get_running_loop().time() + seconds
        while (asked := sum(self.count_asked().values())) < calls:
            assert asyncio.get_running_loop().time() < until, f"{asked} of {calls}"
            await asyncio.sleep(0.002)

    def count_asked(self) -> dict[str, int]:
        return {name: len(server.received) for name, server in self.servers.items()}

    def _open_stores(self, redis_url: str | None = None) -> Stores:
        url = redis_url or self.redis_url
        if url is not None:
            return build_redis_stores(url, self._on_redis, SystemClock())
        if self._memory is None:
            self._memory = build_memory_stores(self.policies, SystemClock())
        return self._memory

    @property
    def _on_redis(self) -> Policies:
        cache: CachePolicy = replace(self.policies.cache, store="redis")
        return replace(self.policies, cache=cache)

    async def _list_leases(self) -> list[str]:
        if self.redis_url is None or not self.minds_leases:
            return []
        client = open_redis(self.redis_url)
        try:
            return [key.decode() for key in await client.keys("*:lease:*")]
        finally:
            await client.aclose()

    def _read_metric(self, name: str) -> list[tuple[dict[str, str], float]]:
        families = self.metrics.registry.collect()
        return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


@asynccontextmanager
async def open_yard(redis_url: str | None) -> AsyncIterator[Yard]:
    """Watches the loop too: what it complains of, and what is left pending when all is closed."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        yard = Yard(redis_url, stack)
        loop.set_exception_handler(lambda _, context: yard.complaints.append(context))
        yield yard
        await yard.check_nothing_is_left()
    await asyncio.sleep(0.05)
    gc.collect()
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    assert yard.complaints == []
