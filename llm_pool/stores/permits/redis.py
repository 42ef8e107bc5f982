"""Permits counted in Redis or Valkey, one Lua script for each operation: atomic, by the server's own clock.

The work of a script grows with the parts of a window, never with the calls or tokens in it.
"""

import random
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

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
from llm_pool.stores.permits.told import build_bound, count_given_back, count_unused
from shared.attempts import QuotaReading

LEASE_SECONDS = 30.0
"""After its worker died a permit is given back so late; living workers renew theirs at a third of it."""
SHORTEST_PAUSE_SECONDS = 0.05
PAUSE_SECONDS_PER_PROCESS = 0.005
"""However many processes wait, together they ask a server some 200 times a second."""

Argument = str | int | float


class RedisPermits:
    """Asks the server each time, and raises `redis.RedisError` when it does not answer. `FleetPermits` bears that."""

    def __init__(
        self,
        redis: Redis,
        periods: Periods = PERIODS,
        *,
        prefix: str = "llmyard:permits",
        lease_seconds: float = LEASE_SECONDS,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._prefix = prefix
        self._lease_ms = _to_ms(lease_seconds)
        self._draw = draw
        self._processes: dict[str, int] = {}
        self._shape = [
            round(seconds * 1000)
            for period in (periods.minute, periods.day)
            for seconds in (period.part_seconds, period.span_seconds)
        ]
        names = ("reserve", "withdraw", "close", "lower", "read", "renew")
        self._reserve, self._withdraw, self._close, self._lower, self._read, self._renew = (
            redis.register_script(_load("cells", name)) for name in names
        )

    def counts(self, _deployment: str, _limits: Limits) -> bool:
        """Only the server knows."""
        return True

    async def reserve(self, need: Need, waited_seconds: float | None = None) -> Permit | Refusal:
        reply = await self._run(
            self._reserve,
            need.deployment,
            need.limits,
            [
                need.id,
                need.tokens,
                need.prompt_tokens,
                need.completion_tokens,
                -1 if waited_seconds is None else _to_ms(waited_seconds),
                self._lease_ms,
                _to_ms(CLAIM_SECONDS),
                _to_ms(UNKNOWN_WAIT_SECONDS),
            ],
        )
        if reply[0]:
            return Permit(need, reply[1] / 1000)
        return self._refuse(need.deployment, reply[1].decode(), reply[2] / 1000, bool(reply[3]))

    async def withdraw(self, need: Need) -> None:
        await self._run(self._withdraw, need.deployment, NO_LIMITS, [need.id])

    async def settle(self, permit: Permit, used_tokens: int | None, readings: tuple[QuotaReading, ...] = ()) -> None:
        used_tokens = permit.need.tokens if used_tokens is None else used_tokens
        unused = count_unused(permit.need, used_tokens)
        counted = [used_tokens, 0, unused["tokens"], 0, unused["output_tokens"]]
        await self._end(permit, counted, readings)

    async def release(self, permit: Permit, *, was_sent: bool, readings: tuple[QuotaReading, ...] = ()) -> None:
        unused = count_given_back(permit.need, was_sent=was_sent)
        counted = [0, -unused["requests"], unused["tokens"], unused["input_tokens"], unused["output_tokens"]]
        await self._end(permit, counted, readings)

    async def lower(self, deployment: str, readings: tuple[QuotaReading, ...]) -> None:
        await self._run(self._lower, deployment, NO_LIMITS, list(_write_readings(readings)))

    async def read(self, deployment: str, limits: Limits) -> tuple[CellReading, ...]:
        used = await self._run(self._read, deployment, limits, [])
        cells: tuple[tuple[Cell, int | None], ...] = (
            ("requests_per_minute", limits.requests_per_minute),
            ("tokens_per_minute", limits.tokens_per_minute),
            ("requests_per_day", limits.requests_per_day),
            ("tokens_per_day", limits.tokens_per_day),
        )
        counted = [(cell, limit) for cell, limit in cells if limit is not None]
        readings = [CellReading(cell, limit, count) for (cell, limit), count in zip(counted, used[:-1], strict=True)]
        if limits.in_flight is not None:
            readings.append(CellReading("in_flight", limits.in_flight, used[-1]))
        return tuple(readings)

    async def renew(self, deployment: str, process: str, ids: Iterable[str]) -> int:
        """Keep up the leases of these permits. Returns how many processes use the deployment."""
        processes: int = await self._run(self._renew, deployment, NO_LIMITS, [process, self._lease_ms, *ids])
        self._processes[deployment] = processes
        return processes

    async def aclose(self) -> None:
        """Nothing runs beside the calls, and the client belongs to whoever opened it."""

    async def _end(self, permit: Permit, counted: list[int], readings: tuple[QuotaReading, ...]) -> None:
        arguments = [permit.need.id, _to_ms(permit.reserved_at), *counted, *_write_readings(readings)]
        await self._run(self._close, permit.need.deployment, permit.need.limits, arguments)

    async def _run(self, script: AsyncScript, deployment: str, limits: Limits, arguments: list[Argument]) -> Any:
        keys = [f"{self._prefix}:{{{deployment}}}:{name}" for name in ("counts", "leases", "held", "processes")]
        return await script(keys=keys, args=[*self._shape, *_write_limits(limits), *arguments])

    def _refuse(self, deployment: str, cell: Cell | Told, wait_seconds: float, may_come_sooner: bool) -> Refusal:
        """With some jitter, so that those who were refused as one do not return as one."""
        pause = min(wait_seconds, LONGEST_PAUSE_SECONDS)
        if may_come_sooner:
            processes = self._processes.get(deployment, 1)
            pause = min(pause, max(SHORTEST_PAUSE_SECONDS, processes * PAUSE_SECONDS_PER_PROCESS))
        return Refusal(cell, wait_seconds, pause + self._draw(0.0, 0.01 + 0.05 * pause), may_come_sooner)


def _load(*names: str) -> str:
    return "\n".join(Path(__file__).with_name(f"{name}.lua").read_text() for name in names)


def _to_ms(seconds: float) -> int:
    return round(seconds * 1000)


def _write_limits(limits: Limits) -> list[int]:
    fields = (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.requests_per_day,
        limits.tokens_per_day,
        limits.in_flight,
    )
    return [-1 if limit is None else limit for limit in fields]


def _write_readings(readings: tuple[QuotaReading, ...]) -> Iterable[Argument]:
    for reading in readings:
        bound = build_bound(reading, 0.0)
        if bound is not None:
            ceiling = -1 if bound.ceiling == inf else bound.ceiling
            yield from (reading.kind, reading.period, bound.left, ceiling)
            yield from (repr(bound.refill_per_second / 1000), _to_ms(bound.ends_at))
