"""Permits of a fleet on one Redis, which go on while it is away.

While it cannot be reached, each process gives out its own share: the limits, divided by the processes that used the
deployment when the server last answered. So calls are answered through an outage, and quotas hold. Everything is
also counted here all the time, so that a share begins with what this process took of the minute already; it is kept
to for a minute after the server is back, as that may have lost its counts. Closer than that nobody can know: where
calls were spread unevenly, the minute of the break may pass up to twice the limit, and a process that never reached
the server takes itself for the only one.

A deployment without limits of ours is never asked about: what its provider says is left is then known to this
process only, which costs no round trip and is told anew with each answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import uuid4

import structlog
from redis.exceptions import RedisError

from llm_pool.catalog import NO_LIMITS, Limits
from llm_pool.stores.finishing import Finishing
from llm_pool.stores.permits.base import PERIODS, CellReading, Need, Periods, Permit, Refusal
from llm_pool.stores.permits.memory import MemoryPermits
from llm_pool.stores.permits.redis import LEASE_SECONDS, RedisPermits
from shared.attempts import QuotaReading
from shared.clock import Clock

log = structlog.get_logger()

FAULTS = (RedisError, OSError)
BEAT_SECONDS = LEASE_SECONDS / 3
RETURN_SECONDS = 1.0
"""So often a server that is away is looked for; no call waits for it meanwhile."""


@dataclass(slots=True)
class _Use:
    """What this process has to do with one deployment."""

    limits: Limits
    share: Limits
    """What is ours while the server is away."""
    open: dict[str, Permit] = field(default_factory=dict)
    """Permits the server gave, by id, as they are counted here."""


class FleetPermits:
    """See `PermitStore`. It belongs to the loop that uses it first."""

    def __init__(
        self, redis: RedisPermits, clock: Clock, *, periods: Periods = PERIODS, beat_seconds: float = BEAT_SECONDS
    ) -> None:
        self._redis = redis
        self._local = MemoryPermits(clock, periods)
        self._clock = clock
        self._careful_seconds = periods.minute.span_seconds
        self._beat_seconds = beat_seconds
        self._process = uuid4().hex
        self._uses: dict[str, _Use] = {}
        self._is_away = False
        self._is_closed = False
        self._careful_until = 0.0
        self._unsent: list[Callable[[], Awaitable[None]]] = []
        self._beating: asyncio.Task[None] | None = None
        self._finishing = Finishing()

    def counts(self, deployment: str, limits: Limits) -> bool:
        return self._local.counts(deployment, limits)

    async def reserve(self, need: Need, waited_seconds: float | None = None) -> Permit | Refusal:
        if need.limits == NO_LIMITS:
            return await self._local.reserve(need, waited_seconds)
        use = self._open_use(need)
        if not self._is_away and self._clock.monotonic() >= self._careful_until:
            return await self._ask_server(use, need, waited_seconds)
        mine = await self._local.reserve(_fit(need, use.share), waited_seconds)
        if self._is_away or isinstance(mine, Refusal):
            return mine
        await self._local.release(mine, was_sent=False)
        return await self._ask_server(use, need, waited_seconds)

    async def withdraw(self, need: Need) -> None:
        await self._local.withdraw(need)
        if need.limits != NO_LIMITS and not self._is_away:
            await self._finishing.wait_for(self._withdraw(need))

    async def settle(self, permit: Permit, used_tokens: int | None, readings: tuple[QuotaReading, ...] = ()) -> None:
        mine = self._forget(permit)
        await self._local.settle(mine or permit, used_tokens, readings)
        if mine is not None:
            await self._finishing.wait_for(self._send(partial(self._redis.settle, permit, used_tokens, readings)))

    async def release(self, permit: Permit, *, was_sent: bool, readings: tuple[QuotaReading, ...] = ()) -> None:
        mine = self._forget(permit)
        await self._local.release(mine or permit, was_sent=was_sent, readings=readings)
        if mine is not None:
            command = partial(self._redis.release, permit, was_sent=was_sent, readings=readings)
            await self._finishing.wait_for(self._send(command))

    async def lower(self, deployment: str, readings: tuple[QuotaReading, ...]) -> None:
        """Not called for each answer, so that it may ask the server about a deployment without limits too."""
        await self._local.lower(deployment, readings)
        await self._finishing.wait_for(self._send(partial(self._redis.lower, deployment, readings)))

    async def read(self, deployment: str, limits: Limits) -> tuple[CellReading, ...]:
        """Of the whole fleet; of this process while the server is away."""
        if limits != NO_LIMITS and not self._is_away:
            try:
                return await self._redis.read(deployment, limits)
            except FAULTS as error:
                self._go_away(error)
        return await self._local.read(deployment, limits)

    async def aclose(self) -> None:
        """What is still on its way to the server gets there first."""
        await self._finishing.aclose()
        # Said twice: a cancellation that meets the client while it handles a fault of its own can be lost there.
        self._is_closed = True
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def _reserve_both(self, use: _Use, need: Need, waited_seconds: float | None) -> Permit | Refusal:
        try:
            answer = await self._redis.reserve(need, waited_seconds)
        except FAULTS as error:
            self._go_away(error)
            return await self._local.reserve(_fit(need, use.share), waited_seconds)
        if isinstance(answer, Permit):
            use.open[need.id] = self._local.record(need)
        return answer

    async def _ask_server(self, use: _Use, need: Need, waited_seconds: float | None) -> Permit | Refusal:
        reserving = self._reserve_both(use, need, waited_seconds)
        return await self._finishing.wait_for(reserving, undo=partial(self._take_back, need))

    async def _take_back(self, need: Need, answer: Permit | Refusal) -> None:
        if isinstance(answer, Permit):
            await self.release(answer, was_sent=False)
        else:
            await self.withdraw(need)

    async def _withdraw(self, need: Need) -> None:
        try:
            await self._redis.withdraw(need)
        except FAULTS as error:
            self._go_away(error)

    async def _send(self, command: Callable[[], Awaitable[None]]) -> None:
        if self._is_away:
            self._unsent.append(command)
            return
        try:
            await command()
        except FAULTS as error:
            self._unsent.append(command)
            self._go_away(error)

    def _open_use(self, need: Need) -> _Use:
        use = self._uses.get(need.deployment)
        if use is None:
            use = self._uses[need.deployment] = _Use(need.limits, need.limits)
        if self._beating is None or self._beating.done():
            self._beating = asyncio.ensure_future(self._beat())
        return use

    def _forget(self, permit: Permit) -> Permit | None:
        use = self._uses.get(permit.need.deployment)
        return None if use is None else use.open.pop(permit.need.id, None)

    async def _beat(self) -> None:
        """Keeps up our leases while the server is there, and looks for it while it is not."""
        due_at = 0.0
        while not self._is_closed:
            if self._is_away or self._clock.monotonic() >= due_at:
                due_at = self._clock.monotonic() + self._beat_seconds
                await self._meet_server()
            await asyncio.sleep(min(self._beat_seconds, RETURN_SECONDS))

    async def _meet_server(self) -> None:
        try:
            await self._renew()
        except FAULTS as error:
            self._go_away(error)
        else:
            await self._come_back()

    async def _renew(self) -> None:
        for deployment, use in list(self._uses.items()):
            processes = await self._redis.renew(deployment, self._process, list(use.open))
            use.share = _divide(use.limits, processes)

    def _go_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("permits_unavailable", error_type=type(error).__name__, deployments=sorted(self._uses))

    async def _come_back(self) -> None:
        if not self._is_away:
            return
        self._is_away = False
        self._careful_until = self._clock.monotonic() + self._careful_seconds
        log.info("permits_available", deployments=sorted(self._uses))
        unsent, self._unsent = self._unsent, []
        for command in unsent:
            await self._send(command)


def _divide(limits: Limits, processes: int) -> Limits:
    """At least one of each, so that nobody stands still for good."""
    return Limits(
        *(
            None if limit is None else max(1, limit // processes)
            for limit in (
                limits.requests_per_minute,
                limits.tokens_per_minute,
                limits.requests_per_day,
                limits.tokens_per_day,
                limits.in_flight,
            )
        )
    )


def _fit(need: Need, share: Limits) -> Need:
    """A request that only the whole limit has room for takes the whole share."""
    tokens = min(limit for limit in (share.tokens_per_minute, share.tokens_per_day, need.tokens) if limit is not None)
    prompt_tokens = min(need.prompt_tokens, tokens)
    return replace(need, limits=share, prompt_tokens=prompt_tokens, completion_tokens=tokens - prompt_tokens)
