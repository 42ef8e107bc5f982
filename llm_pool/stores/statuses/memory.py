"""For one process that is asked itself."""

from collections.abc import Sequence
from uuid import uuid4

from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus
from llm_pool.stores.statuses.base import KEPT_FOR
from llm_pool.stores.statuses.summing import build_status, is_counted
from shared.clock import Clock, SystemClock


class MemoryBoard:
    """What several `MemoryStatuses` share, as processes share a Redis."""

    def __init__(self) -> None:
        self.quotas: dict[tuple[str, str], DeploymentQuota] = {}
        self.answering: dict[str, Answering] = {}


class MemoryStatuses:
    """See `StatusStore`."""

    def __init__(self, board: MemoryBoard | None = None, clock: Clock | None = None) -> None:
        self._board = board or MemoryBoard()
        self._clock = clock or SystemClock()
        self._process = uuid4().hex

    async def publish(self, quotas: Sequence[DeploymentQuota], answering: Sequence[Answering]) -> None:
        for quota in quotas:
            self._board.quotas[quota.deployment, self._process if is_counted(quota) else ""] = quota
        self._board.answering.update({each.model_group: each for each in answering})

    async def read(self) -> PoolStatus:
        now = self._clock.now()
        oldest = now - KEPT_FOR
        quotas = (quota for quota in self._board.quotas.values() if any(i.heard_at >= oldest for i in quota.quotas))
        answering = (each for each in self._board.answering.values() if each.answered_at >= oldest)
        return build_status(quotas, answering, now)
