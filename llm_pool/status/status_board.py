"""Collects how this pool stands, and tells others about once a second, beside the calls and never in their way."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

import structlog

from llm_pool.catalog import Deployment
from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus
from llm_pool.status.quota import QuotaTracker
from llm_pool.stores.statuses.base import StatusStore, StatusStoreUnavailableError
from shared.clock import Clock, SystemClock

log = structlog.get_logger()

INTERVAL_SECONDS = 1.0


class QuotaMeter(Protocol):
    """Shows quotas; `llm_pool.status.metrics.Metrics` does."""

    def show_quota(self, deployment: str, kind: str, limit: int | None, remaining: int | None, /) -> None: ...


class StatusBoard:
    """Of one pool. What changes within a second is told in one go, the last change included."""

    def __init__(
        self,
        tracker: QuotaTracker,
        *,
        clock: Clock | None = None,
        store: StatusStore | None = None,
        meter: QuotaMeter | None = None,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._tracker = tracker
        self._clock = clock or SystemClock()
        self._store = store
        self._meter = meter
        self._interval_seconds = interval_seconds
        self._answering: dict[str, tuple[Deployment, datetime]] = {}
        self._changed_groups: set[str] = set()
        self._changed_deployments: set[str] = set()
        self._telling: asyncio.Task[None] | None = None
        self._is_store_away = False

    def note_answer(self, model_group: str, deployment: Deployment) -> None:
        self._answering[model_group] = deployment, self._clock.now()
        self._changed_groups.add(model_group)
        self.note_quota(deployment)

    def note_quota(self, deployment: Deployment) -> None:
        """The tracker knows something new of it."""
        self._changed_deployments.add(deployment.name)
        if (self._telling is None or self._telling.done()) and (self._store is not None or self._meter is not None):
            self._telling = asyncio.create_task(self._keep_telling())

    def get_status(self) -> PoolStatus:
        """This process's own view."""
        return PoolStatus(self._tracker.get_status(), tuple(self._describe(group) for group in sorted(self._answering)))

    async def aclose(self) -> None:
        """Tell what is not told yet."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
            await self._tell()

    async def _keep_telling(self) -> None:
        """Until there is no news."""
        while self._changed_deployments:
            await asyncio.sleep(self._interval_seconds)
            await self._tell()

    async def _tell(self) -> None:
        names, self._changed_deployments = self._changed_deployments, set()
        groups, self._changed_groups = self._changed_groups, set()
        try:
            await self._publish(names, groups)
        except asyncio.CancelledError:
            self._changed_deployments |= names
            self._changed_groups |= groups
            raise

    async def _publish(self, names: Iterable[str], groups: Iterable[str]) -> None:
        quotas = [quota for name in sorted(names) if (quota := self._tracker.find_status(name)) is not None]
        if self._meter is not None:
            _show(quotas, self._meter)
        if self._store is None:
            return
        try:
            await self._store.publish(quotas, [self._describe(group) for group in sorted(groups)])
            self._is_store_away = False
        except StatusStoreUnavailableError as error:
            self._note_absence(error)

    def _describe(self, group: str) -> Answering:
        deployment, answered_at = self._answering[group]
        return Answering(group, deployment.name, deployment.provider, deployment.model, answered_at)

    def _note_absence(self, error: StatusStoreUnavailableError) -> None:
        """Once: nothing that a call needs is lost, and the next word holds again."""
        if not self._is_store_away:
            log.warning("status_not_told", error=repr(error.__cause__))
        self._is_store_away = True


def _show(quotas: list[DeploymentQuota], meter: QuotaMeter) -> None:
    for quota in quotas:
        for info in quota.quotas:
            meter.show_quota(quota.deployment, f"{info.kind}_per_{info.period}", info.limit, info.remaining)
