"""What all pools of one client know of quotas: it has one pool for each model it was asked for."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from llm_pool.pool_status import DeploymentQuota
from llm_pool.stores.statuses.summing import build_status

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def merge_quotas(quotas: Iterable[DeploymentQuota], now: datetime) -> tuple[DeploymentQuota, ...]:
    """One for each deployment and model: what its provider told last, else the sum of what was counted."""
    told: dict[tuple[str, str], list[DeploymentQuota]] = {}
    for quota in sorted(quotas, key=_find_latest, reverse=True):
        told.setdefault((quota.deployment, quota.model), []).append(quota)
    return tuple(merged for key in sorted(told) for merged in build_status(told[key], (), now).quotas)


def _find_latest(quota: DeploymentQuota) -> datetime:
    return max((info.heard_at for info in quota.quotas), default=_NEVER)
