"""How the pool stands, for people and programs that look at it from outside: quotas, and who answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

_PERIODS: Final[Mapping[str, timedelta]] = {"minute": timedelta(minutes=1), "day": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class QuotaInfo:
    """Where one quota stands."""

    kind: Literal["requests", "tokens", "input_tokens", "output_tokens"]
    period: Literal["minute", "day"]
    limit: int | None
    """None: the provider did not say, or we count and have no limit configured."""
    remaining: int | None
    used: int | None
    resets_at: datetime | None
    """From then on it is full again; None where the provider did not say."""
    heard_at: datetime
    is_warning: bool
    """The warning threshold is passed."""
    is_counted: bool = False
    """The provider tells nothing: this is our own count."""

    def has_lapsed(self, now: datetime) -> bool:
        """Some of it was said to be used, and not until when: beyond its period nobody knows any more."""
        is_full = self.remaining == self.limit
        return self.resets_at is None and not is_full and self.heard_at + _PERIODS[self.period] <= now


@dataclass(frozen=True, slots=True)
class DeploymentQuota:
    """All that is known of one deployment's quotas."""

    deployment: str
    provider: str
    model: str
    quotas: tuple[QuotaInfo, ...]


@dataclass(frozen=True, slots=True)
class Answering:
    """Who answered a model group's last request."""

    model_group: str
    deployment: str
    provider: str
    model: str
    answered_at: datetime


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool's view, or that of all pools which share a store."""

    quotas: tuple[DeploymentQuota, ...] = ()
    """By name of the deployment."""
    answering: tuple[Answering, ...] = ()
    """By name of the group."""

    @property
    def current_provider(self) -> str | None:
        """Of the latest answer of all."""
        latest = max(self.answering, key=lambda each: each.answered_at, default=None)
        return None if latest is None else latest.provider
