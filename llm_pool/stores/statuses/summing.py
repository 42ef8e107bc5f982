"""Puts what several processes told together. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus, QuotaInfo


def is_counted(quota: DeploymentQuota) -> bool:
    """The process that tells it counted by itself."""
    return any(info.is_counted for info in quota.quotas)


def build_status(quotas: Iterable[DeploymentQuota], answering: Iterable[Answering]) -> PoolStatus:
    """What a provider told stands before what was counted; counts of one deployment are added up."""
    ordered = sorted(quotas, key=lambda quota: quota.deployment)
    merged = (_merge(list(group)) for _, group in groupby(ordered, key=lambda quota: quota.deployment))
    return PoolStatus(tuple(merged), tuple(sorted(answering, key=lambda each: each.model_group)))


def _merge(quotas: Sequence[DeploymentQuota]) -> DeploymentQuota:
    for quota in quotas:
        if not is_counted(quota):
            return quota
    newest = max(info.resets_at for quota in quotas for info in quota.quotas if info.resets_at is not None)
    counted = [info for quota in quotas for info in quota.quotas if info.resets_at == newest]
    kinds = dict.fromkeys(info.kind for info in counted)
    summed = tuple(_sum([info for info in counted if info.kind == kind]) for kind in kinds)
    return replace(quotas[0], quotas=summed)


def _sum(counts: Sequence[QuotaInfo]) -> QuotaInfo:
    """Of one day. Each process warns by its own count alone, so that the sum may be beyond a threshold unsaid."""
    latest = max(counts, key=lambda info: info.heard_at)
    used = sum(info.used or 0 for info in counts)
    remaining = None if latest.limit is None else max(latest.limit - used, 0)
    return replace(latest, used=used, remaining=remaining, is_warning=any(info.is_warning for info in counts))
