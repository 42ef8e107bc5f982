"""Puts what several processes told together. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby

from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus, QuotaInfo


def is_counted(quota: DeploymentQuota) -> bool:
    """The process that tells it counted by itself."""
    return any(info.is_counted for info in quota.quotas)


def build_status(quotas: Iterable[DeploymentQuota], answering: Iterable[Answering], now: datetime) -> PoolStatus:
    """What a provider told stands before what was counted, while it holds; counts of one deployment are added up."""
    living = (live for quota in quotas if (live := _leave_out_lapsed(quota, now)).quotas)
    ordered = sorted(living, key=lambda quota: quota.deployment)
    merged = (_merge(list(group)) for _, group in groupby(ordered, key=lambda quota: quota.deployment))
    return PoolStatus(tuple(merged), tuple(sorted(answering, key=lambda each: each.model_group)))


def _leave_out_lapsed(quota: DeploymentQuota, now: datetime) -> DeploymentQuota:
    return replace(quota, quotas=tuple(info for info in quota.quotas if not info.has_lapsed(now)))


def _merge(quotas: Sequence[DeploymentQuota]) -> DeploymentQuota:
    counts = [quota for quota in quotas if is_counted(quota)]
    counted_at = max((info.heard_at for quota in counts for info in quota.quotas), default=None)
    for quota in quotas:
        if not is_counted(quota) and (counted_at is None or _still_holds(quota, counted_at)):
            return quota
    return _add_up(counts)


def _still_holds(told: DeploymentQuota, counted_at: datetime) -> bool:
    """When an answer came that told nothing."""
    return any(info.heard_at >= counted_at or (info.resets_at or counted_at) > counted_at for info in told.quotas)


def _add_up(counts: Sequence[DeploymentQuota]) -> DeploymentQuota:
    newest = max(info.resets_at for quota in counts for info in quota.quotas if info.resets_at is not None)
    counted = [info for quota in counts for info in quota.quotas if info.resets_at == newest]
    kinds = dict.fromkeys(info.kind for info in counted)
    summed = tuple(_sum([info for info in counted if info.kind == kind]) for kind in kinds)
    return replace(counts[0], quotas=summed)


def _sum(counts: Sequence[QuotaInfo]) -> QuotaInfo:
    """Of one day. Each process warns by its own count alone, so that the sum may be beyond a threshold unsaid."""
    latest = max(counts, key=lambda info: info.heard_at)
    used = sum(info.used or 0 for info in counts)
    remaining = None if latest.limit is None else max(latest.limit - used, 0)
    return replace(latest, used=used, remaining=remaining, is_warning=any(info.is_warning for info in counts))
