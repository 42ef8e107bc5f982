"""The stores of one pool, chosen together: in this process's memory, or with Redis for a whole fleet (`on_redis`)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pkgutil import resolve_name

from llm_pool.policies import CachePolicy, Policies
from llm_pool.stores.answers.base import AnswerStore
from llm_pool.stores.answers.memory import MemoryAnswers
from llm_pool.stores.budgets.base import BudgetStore
from llm_pool.stores.budgets.memory import MemoryBudgetStore
from llm_pool.stores.cooldowns.base import CooldownStore
from llm_pool.stores.cooldowns.memory import MemoryCooldowns
from llm_pool.stores.permits.base import PermitStore
from llm_pool.stores.permits.memory import MemoryPermits
from llm_pool.stores.statuses.base import StatusStore
from shared.clock import Clock
from shared.errors import ConfigurationError


async def _nothing_to_close() -> None: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """What the middlewares remember by."""

    permits: PermitStore
    cooldowns: CooldownStore
    budgets: BudgetStore
    answers: AnswerStore
    statuses: StatusStore | None = None
    """Where others read how this pool stands; None: nobody does."""
    close: Callable[[], Awaitable[None]] = _nothing_to_close
    """Ends what the stores share, after them."""

    async def aclose(self) -> None:
        await asyncio.gather(self.permits.aclose(), self.cooldowns.aclose(), self.budgets.aclose())
        await self.answers.aclose()
        await self.close()


def build_memory_stores(policies: Policies, clock: Clock) -> Stores:
    """For a pool that shares nothing with others.

    Raises:
        ConfigurationError: the cache is to be kept in Redis.
    """
    return Stores(
        MemoryPermits(clock),
        MemoryCooldowns(policies.cooldown, clock),
        MemoryBudgetStore(clock),
        build_answer_store(policies.cache, clock),
    )


def build_answer_store(policy: CachePolicy, clock: Clock) -> AnswerStore:
    """
    Raises:
        ConfigurationError: it is to be kept in Redis, or on a disk that is not named.
    """
    if policy.store in ("memory", "none"):  # under `none` nobody asks it
        return MemoryAnswers(clock, policy.max_entries)
    if policy.store == "redis":
        raise ConfigurationError("`cache.store` is redis: set REDIS_URL, or `cache.store` to memory, disk or none.")
    if policy.directory is None:
        raise ConfigurationError("`cache.store` is disk: set `cache.directory` too.")
    # By name, where it is wanted: it brings pydantic, which would be a third of what a pool takes to import.
    open_disk: Callable[..., AnswerStore] = resolve_name("llm_pool.stores.answers.disk:DiskAnswers")
    return open_disk(clock, policy.directory, policy.max_entries)
