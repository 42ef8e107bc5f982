"""Request ring: who asks what was asked before gets the same answer, at once and for nothing.

Equal requests that are under way at the same time are one call: within a process the later ones wait for the first,
and between processes whoever holds the store's lease asks. Outside the budget, as a hit costs nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import cast

from llm_pool.cache_key import build_cache_key, build_fingerprints
from llm_pool.call import Call, RequestHandler
from llm_pool.catalog import Catalog
from llm_pool.json_text import fits
from llm_pool.policies import CachePolicy
from llm_pool.stores.answers.base import LEASE_SECONDS, AnswerStore, Finding, Lease
from llm_pool.stores.answers.guarded import GuardedAnswers
from llm_pool.types import CompletionRequest, CompletionResponse, Response
from shared.clock import Clock
from shared.errors import LLMBudgetExceededError, LLMError, LLMNoPermitError, LLMTimeoutError

FIRST_LOOK_SECONDS = 0.02
"""After which an answer that another process asks for is looked for again; doubled each time up to the next."""
LONGEST_LOOK_SECONDS = 0.25

_NOTHING = Decimal(0)
_OWN_FAILURES = (LLMBudgetExceededError, LLMNoPermitError, LLMTimeoutError)
"""Of the asker's own money and time: those who wait for its answer may have more. Want of a permit is its purse's:
that of a deployment's never comes here, as then nobody is available."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Since this cache was made, in this process."""

    hits: int
    misses: int

    @property
    def hit_rate(self) -> float:
        """Share of the requests that the cache was asked for; streams and hot requests are not among them."""
        return self.hits / (self.hits + self.misses) if self.hits else 0.0


@dataclass(slots=True)
class _Flight:
    """One request under way, and those who wait for its end. Neither answer nor failure: ask yourselves."""

    key: str
    request: CompletionRequest
    timeout_seconds: float
    """What its asker allows it."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    answer: CompletionResponse | None = None
    failure: LLMError | None = None
    is_kept: bool = False


class Cache:
    """Answers from its store what may be answered from there, see `decide_use` and `decide_keep`."""

    def __init__(
        self,
        store: AnswerStore,
        policy: CachePolicy,
        catalog: Catalog,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = GuardedAnswers(store, clock)
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._fingerprints = build_fingerprints(catalog)
        self._own_deployments = {
            name: frozenset(deployment.name for deployment in group.deployments)
            for name, group in catalog.groups.items()
        }
        self._flights: dict[str, _Flight] = {}
        self._hits = 0
        self._misses = 0

    def __call__(self, call: Call, proceed: RequestHandler) -> Awaitable[Response]:
        request = call.request
        if not isinstance(request, CompletionRequest) or not decide_use(call, request, self._policy):
            return proceed(call)
        return self._answer(request, call, proceed)

    async def _answer(self, request: CompletionRequest, call: Call, proceed: RequestHandler) -> Response:
        key = build_cache_key(request, self._fingerprints[request.model])
        while (flight := self._flights.get(key)) is not None:
            await self._wait_for(flight, call)
            if flight.answer is not None:
                return self._hit(call, flight.answer)
            if flight.failure is not None and _measure_time(call) <= flight.timeout_seconds:
                self._miss(call)
                raise _copy_without_attempts(flight.failure)
        return await self._fly(_Flight(key, request, _measure_time(call)), call, proceed)

    def stats(self) -> CacheStats:
        return CacheStats(self._hits, self._misses)

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _wait_for(self, flight: _Flight, call: Call) -> None:
        try:
            async with asyncio.timeout(call.deadline - self._clock.monotonic()):
                await flight.ended.wait()
        except TimeoutError as error:
            self._miss(call)
            raise LLMTimeoutError(f"no answer within {_measure_time(call):g} s") from error

    async def _fly(self, flight: _Flight, call: Call, proceed: RequestHandler) -> Response:
        """A cancelled asker takes nobody along: the next of those who wait asks in its place."""
        self._flights[flight.key] = flight
        try:
            finding = await self._find(flight.key, call)
            if finding.response is not None:
                flight.answer = finding.response
                return self._hit(call, finding.response)
            self._miss(call)
            if finding.lease is None:
                return await self._ask(flight, None, call, proceed)
            return await self._ask_under(flight, finding.lease, call, proceed)
        except LLMError as error:
            flight.failure = None if isinstance(error, _OWN_FAILURES) else error
            raise
        finally:
            del self._flights[flight.key]
            flight.ended.set()

    async def _find(self, key: str, call: Call) -> Finding:
        """Waits for another process that asks, for half of the time there is; after that, both ask."""
        now = self._clock.monotonic()
        latest, wait = now + (call.deadline - now) / 2, FIRST_LOOK_SECONDS
        while (finding := await self._store.find_or_lease(key)).is_awaited:
            if self._clock.monotonic() + wait > latest:
                break
            await self._sleep(wait)
            wait = min(2 * wait, LONGEST_LOOK_SECONDS)
        return finding

    async def _ask_under(
        self, flight: _Flight, lease: Lease, call: Call, proceed: RequestHandler
    ) -> CompletionResponse:
        """The lease is short, so that nobody waits long for an asker that died, and renewed for one that lives."""
        renewing = asyncio.create_task(self._renew_for_ever(lease))
        try:
            return await self._ask(flight, lease, call, proceed)
        finally:
            renewing.cancel()
            if not flight.is_kept:
                await self._store.give_up(lease)

    async def _ask(
        self, flight: _Flight, lease: Lease | None, call: Call, proceed: RequestHandler
    ) -> CompletionResponse:
        response = cast(CompletionResponse, await proceed(call))
        flight.answer = _strip(response)
        if decide_keep(call, flight.request, response) and self._is_own(flight.request, response):
            await self._store.keep(flight.key, flight.answer, self._policy.ttl_seconds, lease)
            flight.is_kept = True
        return response

    def _is_own(self, request: CompletionRequest, response: CompletionResponse) -> bool:
        """What a fallback answered in an outage is not told for an hour after it."""
        return response.deployment in self._own_deployments[request.model]

    async def _renew_for_ever(self, lease: Lease) -> None:
        while True:
            await self._sleep(LEASE_SECONDS / 3)
            await self._store.renew(lease)

    def _hit(self, call: Call, answer: CompletionResponse) -> CompletionResponse:
        self._hits += 1
        call.cache = "hit"
        return replace(answer, latency_seconds=self._clock.monotonic() - call.entered_at)

    def _miss(self, call: Call) -> None:
        self._misses += 1
        call.cache = "miss"


def decide_use(call: Call, request: CompletionRequest, policy: CachePolicy) -> bool:
    """Whether the cache is asked: never for streams; what the caller says goes before what the temperature says."""
    if call.is_streamed or policy.store == "none":
        return False
    if call.config.use_cache is not None:
        return call.config.use_cache
    return request.temperature is not None and request.temperature <= policy.max_temperature


def decide_keep(call: Call, request: CompletionRequest, response: CompletionResponse) -> bool:
    """A blocked answer may be let through next time. One that was cut short is whole where the caller set the bound,
    and where somebody else did, it is not what was asked for. Nor is JSON of another shape, where the caller checks it.
    """
    was_cut = response.finish_reason == "length" and request.max_tokens is None
    if was_cut or response.finish_reason == "content_filter":
        return False
    if request.json_format is None or response.tool_calls or not call.config.keeps_only_fitting:
        return True
    return fits(response.content, request.json_format)


def _strip(response: CompletionResponse) -> CompletionResponse:
    """As a hit: what the first asker tried and paid is written down once, with the first asker."""
    return CompletionResponse(
        content=response.content,
        model=response.model,
        provider=response.provider,
        deployment=response.deployment,
        finish_reason=response.finish_reason,
        usage=response.usage,
        latency_seconds=response.latency_seconds,
        attempts=(),
        tool_calls=response.tool_calls,
        cost_usd=_NOTHING,
        cached=True,
    )


def _measure_time(call: Call) -> float:
    """Seconds the caller allowed."""
    return call.deadline - call.entered_at


def _copy_without_attempts(failure: LLMError) -> LLMError:
    """For one more who waited: the attempts are the first asker's, and two must not raise the same object."""
    twin = type(failure).__new__(type(failure), *failure.args)
    twin.__dict__.update(failure.__dict__)
    twin.attempts = ()
    twin.__cause__ = failure.__cause__
    return twin
