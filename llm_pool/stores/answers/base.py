"""The seam every store of answers fills, and what passes through it."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from llm_pool.types import CompletionResponse

LEASE_SECONDS = 10.0
"""How long others wait for an asker that died; who lives renews it long before."""
PATIENCE_SECONDS = 1.0
"""A store answers in milliseconds; one that has not by then is treated as away."""
KEPT_BY_MANY = 10_000
"""Answers in a store that a whole fleet shares; with long ones about 200 MB."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to ask for one answer, while all others wait for it. It ends by itself when its holder dies."""

    key: str
    token: str
    """Its holder's; nobody else can end or renew it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a store says to who needs an answer. Neither field: ask, nobody has to know."""

    response: CompletionResponse | None = None
    lease: Lease | None = None
    """Ask, then keep the answer under this lease or give it up."""
    is_awaited: bool = False
    """Another process is asking just now: come back for its answer."""


class AnswerStore(Protocol):
    """Keeps so many answers, the oldest out first, each for so long. Every method may raise
    `AnswerStoreUnavailableError`, and may be run twice without harm.
    """

    async def find_or_lease(self, key: str, lease_seconds: float = LEASE_SECONDS) -> Finding:
        """The answer, or the right to ask for it, or neither."""

    async def renew(self, lease: Lease, lease_seconds: float = LEASE_SECONDS) -> None:
        """It ends `lease_seconds` from now; one that was lost stays lost."""

    async def keep(
        self, key: str, response: CompletionResponse, ttl_seconds: float, lease: Lease | None = None
    ) -> None:
        """In place of an older one; the lease it was asked under ends with it."""

    async def give_up(self, lease: Lease) -> None:
        """Others may ask; one that was lost is left to its new holder."""

    async def aclose(self) -> None:
        """Close what this store opened itself."""


class AnswerStoreUnavailableError(Exception):
    """The store cannot be used just now; its `__cause__` says why. Never leaves the cache."""


async def take_back(store: AnswerStore, finding: Finding) -> None:
    """Nobody will ask under this lease: whoever found it was cancelled."""
    if finding.lease is not None:
        with suppress(AnswerStoreUnavailableError):
            await store.give_up(finding.lease)
