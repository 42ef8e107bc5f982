"""Answers of one process. It needs no leases: equal requests of one process meet before the store is asked."""

from dataclasses import dataclass

from llm_pool.stores.answers.base import LEASE_SECONDS, Finding, Lease
from llm_pool.types import CompletionResponse
from shared.clock import Clock

_NOTHING = Finding()


@dataclass(frozen=True, slots=True)
class _Kept:
    finding: Finding
    expires_at: float
    """By `Clock.monotonic`."""


class MemoryAnswers:
    """A dict in the order of keeping."""

    def __init__(self, clock: Clock, max_entries: int) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._kept: dict[str, _Kept] = {}

    async def find_or_lease(self, key: str, lease_seconds: float = LEASE_SECONDS) -> Finding:  # noqa: ARG002 - the seam's signature
        kept = self._kept.get(key)
        if kept is None:
            return _NOTHING
        if kept.expires_at <= self._clock.monotonic():
            del self._kept[key]
            return _NOTHING
        return kept.finding

    async def renew(self, lease: Lease, lease_seconds: float = LEASE_SECONDS) -> None:
        """There is never one."""

    async def keep(
        self,
        key: str,
        response: CompletionResponse,
        ttl_seconds: float,
        lease: Lease | None = None,  # noqa: ARG002 - the seam's signature
    ) -> None:
        self._kept.pop(key, None)
        self._kept[key] = _Kept(Finding(response), self._clock.monotonic() + ttl_seconds)
        if len(self._kept) > self._max_entries:
            del self._kept[next(iter(self._kept))]

    async def give_up(self, lease: Lease) -> None:
        """There is never one."""

    async def aclose(self) -> None:
        self._kept.clear()
