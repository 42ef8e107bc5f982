"""Permits counted in this process, which is the whole fleet where there is no Redis."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from llm_pool.catalog import NO_LIMITS, Limits
from llm_pool.stores.permits.base import (
    CLAIM_SECONDS,
    LONGEST_PAUSE_SECONDS,
    PERIODS,
    UNKNOWN_WAIT_SECONDS,
    Cell,
    CellReading,
    Need,
    Periods,
    Permit,
    Refusal,
    Told,
)
from llm_pool.stores.permits.told import ToldBounds, count_given_back, count_unused
from llm_pool.stores.permits.window import Window
from shared.attempts import QuotaReading
from shared.clock import Clock

Shortage = tuple[Cell | Told, float, bool]
"""What there is too little of, seconds until there may be enough, and whether that may come sooner."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """Room is kept for who has waited longest."""

    id: str
    tokens: int
    since: float
    ends_at: float


_NOBODY = _Claim("", 0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Counter:
    """One limit, and the window it is held against."""

    cell: Cell
    limit: int
    window: Window
    takes_tokens: bool


class _Tally:
    """Everything that is counted of one deployment."""

    def __init__(self, periods: Periods) -> None:
        self._periods = periods
        self._windows: dict[Cell, Window] = {}
        self._limits: Limits | None = None
        self.counters: tuple[_Counter, ...] = ()
        self.told = ToldBounds()
        self.open: dict[str, int] = {}
        """Tokens that each open permit may take, by its id."""
        self.held_tokens = 0
        self._claim = _NOBODY

    def refresh(self, limits: Limits, now: float) -> None:
        """To be called before anything is read: what is over is forgotten."""
        if limits is not self._limits:
            self._limits, self.counters = limits, tuple(self._list_counters(limits))
        for counter in self.counters:
            counter.window.forget(now)
        if self.told:
            self.told.forget(now)

    def find_shortages(self, need: Need, ahead: _Claim, now: float) -> Iterator[Shortage]:
        for counter in self.counters:
            count = need.tokens if counter.takes_tokens else 1
            kept = 0 if ahead is _NOBODY else (ahead.tokens if counter.takes_tokens else 1)
            free = counter.limit - counter.window.used
            if count + kept > free:
                excess = count + kept - free
                wait = counter.window.find_wait(excess, now)
                may_come_sooner = count <= free or (counter.takes_tokens and self.held_tokens >= excess)
                yield counter.cell, min(wait, UNKNOWN_WAIT_SECONDS) if may_come_sooner else wait, may_come_sooner
        places, kept = need.limits.in_flight, 0 if ahead is _NOBODY else 1
        if places is not None and len(self.open) + 1 + kept > places:
            yield "in_flight", UNKNOWN_WAIT_SECONDS, True
        if self.told:
            yield from ((cell, wait, False) for cell, wait in self.told.find_shortages(need, now))

    def find_claim_before(self, need: Need, since: float, now: float) -> _Claim:
        claim = self._claim
        return claim if claim.ends_at > now and claim.since < since and claim.id != need.id else _NOBODY

    def claim(self, need: Need, since: float, now: float) -> None:
        if self._claim.id == need.id or self._claim.ends_at <= now or since < self._claim.since:
            self._claim = _Claim(need.id, need.tokens, since, now + CLAIM_SECONDS)

    def withdraw(self, need: Need) -> None:
        if self._claim.id == need.id:
            self._claim = _NOBODY

    def take(self, need: Need, now: float) -> None:
        for counter in self.counters:
            counter.window.add(need.tokens if counter.takes_tokens else 1, now)
        if self.told:
            self.told.take(need, now)
        self.open[need.id] = need.tokens
        self.held_tokens += need.tokens
        self.withdraw(need)

    def close(self, permit: Permit, requests: int, tokens: int) -> bool:
        """Count so many more or fewer than were reserved. False: it was closed before."""
        if permit.need.id not in self.open:
            return False
        self.held_tokens -= self.open.pop(permit.need.id)
        for counter in self.counters:
            counter.window.correct(tokens if counter.takes_tokens else requests, permit.reserved_at)
        return True

    def _list_counters(self, limits: Limits) -> Iterator[_Counter]:
        minute, day = partial(Window, self._periods.minute), partial(Window, self._periods.day)
        cells: tuple[tuple[Cell, int | None, Callable[[], Window], bool], ...] = (
            ("requests_per_minute", limits.requests_per_minute, minute, False),
            ("tokens_per_minute", limits.tokens_per_minute, minute, True),
            ("requests_per_day", limits.requests_per_day, day, False),
            ("tokens_per_day", limits.tokens_per_day, day, True),
        )
        for cell, limit, create, takes_tokens in cells:
            if limit is not None:
                window = self._windows[cell] = self._windows.get(cell) or create()
                yield _Counter(cell, limit, window, takes_tokens)


class MemoryPermits:
    """See `PermitStore`. Leases are not needed: a process that dies takes its counts along."""

    def __init__(self, clock: Clock, periods: Periods = PERIODS) -> None:
        self._clock = clock
        self._periods = periods
        self._tallies: dict[str, _Tally] = {}

    def counts(self, deployment: str, limits: Limits) -> bool:
        return limits != NO_LIMITS or deployment in self._tallies

    async def reserve(self, need: Need, waited_seconds: float | None = None) -> Permit | Refusal:
        now = self._clock.monotonic()
        if not self.counts(need.deployment, need.limits):
            return Permit(need, now)
        tally = self._open_tally(need.deployment)
        tally.refresh(need.limits, now)
        since = now - (waited_seconds or 0.0)
        ahead = tally.find_claim_before(need, since, now)
        shortages = list(tally.find_shortages(need, ahead, now))
        if not shortages:
            tally.take(need, now)
            return Permit(need, now)
        if waited_seconds is not None:
            tally.claim(need, since, now)
        cell, wait_seconds, may_come_sooner = max(shortages, key=lambda shortage: shortage[1])
        return Refusal(cell, wait_seconds, min(wait_seconds, LONGEST_PAUSE_SECONDS), may_come_sooner)

    def record(self, need: Need) -> Permit:
        """Count what somebody else gave leave for, whatever the limits."""
        now = self._clock.monotonic()
        tally = self._open_tally(need.deployment)
        tally.refresh(need.limits, now)
        tally.take(need, now)
        return Permit(need, now)

    async def withdraw(self, need: Need) -> None:
        tally = self._tallies.get(need.deployment)
        if tally is not None:
            tally.withdraw(need)

    async def settle(self, permit: Permit, used_tokens: int | None, readings: tuple[QuotaReading, ...] = ()) -> None:
        used_tokens = permit.need.tokens if used_tokens is None else used_tokens
        self._close(permit, 0, count_unused(permit.need, used_tokens))
        await self.lower(permit.need.deployment, readings)

    async def release(self, permit: Permit, *, was_sent: bool, readings: tuple[QuotaReading, ...] = ()) -> None:
        self._close(permit, 0 if was_sent else 1, count_given_back(permit.need, was_sent=was_sent))
        await self.lower(permit.need.deployment, readings)

    async def lower(self, deployment: str, readings: tuple[QuotaReading, ...]) -> None:
        if readings:
            self._open_tally(deployment).told.lower(readings, self._clock.monotonic())

    async def read(self, deployment: str, limits: Limits) -> tuple[CellReading, ...]:
        tally = self._open_tally(deployment)
        tally.refresh(limits, self._clock.monotonic())
        readings = [CellReading(counter.cell, counter.limit, counter.window.used) for counter in tally.counters]
        if limits.in_flight is not None:
            readings.append(CellReading("in_flight", limits.in_flight, len(tally.open)))
        return tuple(readings)

    async def aclose(self) -> None:
        """Nothing runs beside the calls."""

    def _open_tally(self, deployment: str) -> _Tally:
        tally = self._tallies.get(deployment)
        if tally is None:
            tally = self._tallies[deployment] = _Tally(self._periods)
        return tally

    def _close(self, permit: Permit, requests: int, unused: Mapping[str, int]) -> None:
        tally = self._tallies.get(permit.need.deployment)
        if tally is not None and tally.close(permit, -requests, -unused["tokens"]) and tally.told:
            tally.told.give_back(unused, permit.reserved_at, self._clock.monotonic())
