"""Counts permits the slow and simple way, each by itself, to tell whether a store keeps to its limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from hypothesis import strategies as st

from llm_pool.catalog import Limits
from llm_pool.stores.permits.base import PERIODS, Need, Permit, PermitStore

NEEDS = count()
LIMITS = st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(1, 8),
    tokens_per_minute=st.none() | st.integers(50, 400),
    requests_per_day=st.none() | st.integers(1, 20),
    tokens_per_day=st.none() | st.integers(50, 900),
    in_flight=st.none() | st.integers(1, 4),
)


@dataclass(frozen=True)
class Reserve:
    tokens: int


@dataclass(frozen=True)
class Settle:
    which: int
    """Of the open permits."""
    share: float
    """Of what was reserved."""


@dataclass(frozen=True)
class Release:
    which: int
    was_sent: bool


@dataclass(frozen=True)
class LetPass:
    seconds: float


CALLS = st.one_of(
    st.builds(Reserve, st.integers(0, 200)),
    st.builds(Settle, st.integers(0, 9), st.floats(0, 1)),
    st.builds(Release, st.integers(0, 9), st.booleans()),
)
TIMES = st.builds(LetPass, st.floats(0, 70) | st.floats(0, 90_000))


@dataclass
class Taken:
    """One permit, as it counts now."""

    permit: Permit
    at: float
    tokens: int
    requests: int = 1
    is_open: bool = True


class Oracle:
    """Does to a store what it is told, and checks each answer against all permits there ever were."""

    def __init__(self, store: PermitStore, limits: Limits, deployment: str = "a") -> None:
        self._store = store
        self._limits = limits
        self._deployment = deployment
        self.now = 0.0
        self.taken: list[Taken] = []

    async def do(self, step: Reserve | Settle | Release) -> None:
        if isinstance(step, Reserve):
            await self._reserve(step.tokens)
        elif opened := [taken for taken in self.taken if taken.is_open]:
            await self._end(opened[step.which % len(opened)], step)

    async def end_all(self) -> None:
        for taken in [taken for taken in self.taken if taken.is_open]:
            await self._end(taken, Release(0, was_sent=True))

    async def count_used(self) -> dict[str, int]:
        readings = await self._store.read(self._deployment, self._limits)
        return {reading.cell: reading.used for reading in readings}

    def count(self, *, is_exact: bool) -> dict[str, int]:
        """What a provider may have seen of the last minute and day; if not exact, what a store may count besides."""
        minute = self._list_since(PERIODS.minute.span_seconds, 0 if is_exact else PERIODS.minute.part_seconds)
        day = self._list_since(PERIODS.day.span_seconds, 0 if is_exact else PERIODS.day.part_seconds)
        return {
            "requests_per_minute": sum(taken.requests for taken in minute),
            "tokens_per_minute": sum(taken.tokens for taken in minute),
            "requests_per_day": sum(taken.requests for taken in day),
            "tokens_per_day": sum(taken.tokens for taken in day),
            "in_flight": sum(taken.is_open for taken in self.taken),
        }

    def count_limited(self) -> dict[str, int]:
        """Of the cells that have a limit."""
        return {cell: used for cell, used in self.count(is_exact=True).items() if self._get_limit(cell) is not None}

    def _get_limit(self, cell: str) -> int | None:
        limit: int | None = getattr(self._limits, cell)
        return limit

    def _list_since(self, span_seconds: float, part_seconds: float) -> Sequence[Taken]:
        return [taken for taken in self.taken if taken.at > self.now - span_seconds - part_seconds - 1e-6]

    async def _reserve(self, tokens: int) -> None:
        need = Need(f"need-{next(NEEDS)}", self._deployment, self._limits, tokens)
        limits = {
            cell: limit for cell in self.count(is_exact=True) if (limit := getattr(self._limits, cell)) is not None
        }
        answer = await self._store.reserve(need)
        if isinstance(answer, Permit):
            self.taken.append(Taken(answer, self.now, tokens))
            counted = self.count(is_exact=True)
            assert all(counted[cell] <= limit for cell, limit in limits.items()), (counted, limits)
        else:
            counted = self.count(is_exact=False)
            wanted = {cell: tokens if "tokens" in cell else 1 for cell in counted}
            assert any(counted[cell] + wanted[cell] > limit for cell, limit in limits.items()), (
                counted,
                limits,
                answer,
            )
            assert answer.wait_seconds > 0

    async def _end(self, taken: Taken, step: Settle | Release) -> None:
        taken.is_open = False
        if isinstance(step, Settle):
            taken.tokens = round(taken.tokens * step.share)
            await self._store.settle(taken.permit, taken.tokens)
        else:
            taken.tokens, taken.requests = 0, 1 if step.was_sent else 0
            await self._store.release(taken.permit, was_sent=step.was_sent)
