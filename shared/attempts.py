"""The record of one try at a provider: the pool writes it, the job ledger keeps it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them."""

    prompt_tokens: int
    """All of the prompt, the next two included."""
    completion_tokens: int
    cached_prompt_tokens: int = 0
    """Read from the provider's prompt cache, which is cheaper."""
    cache_write_tokens: int = 0
    """Written to the provider's prompt cache, which some charge more for."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class QuotaReading:
    """What a provider's answer said of one of our quotas there."""

    kind: Literal["requests", "tokens", "input_tokens", "output_tokens"]
    period: Literal["minute", "day"]
    limit: int | None
    remaining: int | None
    resets_in_seconds: float | None
    """Until it is full again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a request at one deployment, answered or not."""

    deployment: str
    provider: str
    model: str
    """The provider's own model name, not the group's."""
    started_at: datetime
    """By this machine's clock, with time zone."""
    latency_seconds: float
    usage: Usage | None = None
    """None where the provider told nothing, which is not the same as zero."""
    error_type: str | None = None
    """Class name from `shared.errors`; None when the attempt was answered."""
    error_message: str | None = None
    cost_usd: Decimal | None = None
    """None where the usage or the price is not known, which is not the same as nothing."""


def sum_costs(attempts: Iterable[Attempt]) -> Decimal | None:
    """Of those that were answered; None as soon as the cost of one is not known."""
    costs = [attempt.cost_usd for attempt in attempts if attempt.error_type is None]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) if len(known) == len(costs) else None
