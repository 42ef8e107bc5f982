"""For a fleet: two hashes in Redis or Valkey, a field for each deployment and each group."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from uuid import uuid4

import structlog
from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus
from llm_pool.stores.statuses.base import KEPT_FOR, StatusStoreUnavailableError
from llm_pool.stores.statuses.summing import build_status, is_counted
from shared.clock import Clock, SystemClock

log = structlog.get_logger()

QUOTAS: Final = "llmyard:{status}:quotas"
ANSWERING: Final = "llmyard:{status}:answering"
_BETWEEN: Final = "\x1f"
"""Between a deployment's name and the process that counted."""

_Value = TypeVar("_Value")
_QUOTA = TypeAdapter(DeploymentQuota)
_ANSWERING = TypeAdapter(Answering)


class RedisStatuses:
    """See `StatusStore`. `client` stays its opener's to close."""

    def __init__(self, client: Redis, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._process = uuid4().hex

    async def publish(self, quotas: Sequence[DeploymentQuota], answering: Sequence[Answering]) -> None:
        # Whole values, no increments: the client may send a command twice.
        fields: dict[str, dict[Any, Any]] = {
            QUOTAS: {self._name(quota): _QUOTA.dump_json(quota) for quota in quotas},
            ANSWERING: {each.model_group: _ANSWERING.dump_json(each) for each in answering},
        }
        pipeline = self._client.pipeline(transaction=False)
        for key, mapping in fields.items():
            if mapping:
                pipeline.hset(key, mapping=mapping)
                pipeline.expire(key, KEPT_FOR)
        async with _typed_errors():
            await pipeline.execute()

    async def read(self) -> PoolStatus:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(QUOTAS)
        pipeline.hgetall(ANSWERING)
        async with _typed_errors():
            found_quotas, found_answering = await pipeline.execute()
            now = self._clock.now()
            oldest = now - KEPT_FOR
            quotas = {name: quota for name, quota in _parse_all(_QUOTA, found_quotas) if quota.quotas}
            stale = [name for name, quota in quotas.items() if max(info.heard_at for info in quota.quotas) < oldest]
            if stale:
                await self._client.hdel(QUOTAS, *stale)
        answering = (each for _, each in _parse_all(_ANSWERING, found_answering) if each.answered_at >= oldest)
        return build_status((quota for name, quota in quotas.items() if name not in stale), answering, now)

    def _name(self, quota: DeploymentQuota) -> str:
        return f"{quota.deployment}{_BETWEEN}{self._process}" if is_counted(quota) else quota.deployment


def _parse_all(adapter: TypeAdapter[_Value], found: dict[bytes, bytes]) -> list[tuple[bytes, _Value]]:
    """What another version wrote and we cannot read is left out."""
    parsed: list[tuple[bytes, _Value]] = []
    for name, value in found.items():
        try:
            parsed.append((name, adapter.validate_json(value)))
        except ValidationError:
            log.info("status_not_understood", name=name.decode(errors="replace"))
    return parsed


@asynccontextmanager
async def _typed_errors() -> AsyncIterator[None]:
    try:
        yield
    except RedisError as error:
        raise StatusStoreUnavailableError("the status store cannot be reached") from error
