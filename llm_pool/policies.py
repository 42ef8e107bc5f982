"""How the pool treats all its deployments alike, with the defaults that hold where a file says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Which answers are given a second time without asking."""

    store: Literal["memory", "redis", "disk", "none"] = "memory"
    ttl_seconds: float = 3600.0
    max_entries: int = 1000
    """Of the memory store; the oldest go first."""
    directory: Path | None = None
    """Of the disk store."""
    max_temperature: float = 0.3
    """Hotter requests, and those that name no temperature, are asked anew unless the caller wants otherwise."""


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """How much may be spent. A day is one of UTC."""

    daily_usd: Decimal | None = None
    """Of everybody together; None is no cap, here as below."""
    tenant_daily_usd: Decimal | None = None
    """Of each tenant that `tenants` does not name."""
    tenants: Mapping[str, Decimal] = field(default_factory=dict, hash=False)
    """Daily caps by tenant id."""
    keys: Mapping[str, Decimal] = field(default_factory=dict, hash=False)
    """Daily caps by key id."""
    alert_at: float = 0.8
    """Share of a cap at which an alert is given, once a day and cap."""
    webhook_url: str | None = None
    """Where alerts are posted, besides log and metric."""


@dataclass(frozen=True, slots=True)
class CooldownPolicy:
    """When a deployment is left alone, and how it is taken back."""

    failures: int = 3
    """So many tries failed in a row, by the whole fleet; one suffices where the provider says how long to wait."""
    first_seconds: float = 5.0
    """Doubled with each failed probe up to the next."""
    longest_seconds: float = 300.0
    ramp_seconds: float = 10.0
    """After a probe that succeeded, the number of calls at once grows back over this time."""


@dataclass(frozen=True, slots=True)
class QuotaPolicy:
    """What is told of the providers' quotas."""

    warn_at: float = 0.8
    """Used share of a quota at which a warning is given."""


@dataclass(frozen=True, slots=True)
class Policies:
    """All of them."""

    cache: CachePolicy = CachePolicy()
    budget: BudgetPolicy = field(default_factory=BudgetPolicy)
    cooldown: CooldownPolicy = CooldownPolicy()
    quota: QuotaPolicy = QuotaPolicy()
