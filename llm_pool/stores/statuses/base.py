"""The seam between the pools that tell how they stand and whoever asks, in another process or in the same."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus

KEPT_FOR: Final = timedelta(days=2)
"""What nobody has told again by then is not shown any more."""


class StatusStoreUnavailableError(Exception):
    """The store cannot be used just now; its `__cause__` says why."""


class StatusStore(Protocol):
    """The latest word holds. Both methods may raise `StatusStoreUnavailableError`, and be run twice without harm."""

    async def publish(self, quotas: Sequence[DeploymentQuota], answering: Sequence[Answering]) -> None:
        """What changed since this process last told. Its counts are its own; a reader sees all of them added up."""

    async def read(self) -> PoolStatus:
        """Of all processes together."""
