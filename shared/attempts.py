"""The record of one try at a provider: the pool writes it, the job ledger keeps it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


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
