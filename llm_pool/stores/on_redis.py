"""The stores of a fleet: what one worker does counts for all that share the Redis."""

from llm_pool.policies import Policies
from llm_pool.stores.answers.redis import RedisAnswers
from llm_pool.stores.budgets.redis import RedisBudgetStore
from llm_pool.stores.bundle import Stores, build_answer_store
from llm_pool.stores.cooldowns.redis import RedisCooldowns
from llm_pool.stores.permits.fleet import FleetPermits
from llm_pool.stores.permits.redis import RedisPermits
from llm_pool.stores.statuses.redis import RedisStatuses
from shared.clock import Clock
from shared.redis_client import open_redis


def build_redis_stores(url: str, policies: Policies, clock: Clock) -> Stores:
    """Nothing is connected yet; the first call does that, inside the loop that makes it.

    Raises:
        ConfigurationError: the cache is to be kept on a disk that is not named.
    """
    client = open_redis(url)
    cache = policies.cache
    return Stores(
        FleetPermits(RedisPermits(client), clock),
        RedisCooldowns(client, policies.cooldown, clock),
        RedisBudgetStore(client),
        RedisAnswers(client) if cache.store == "redis" else build_answer_store(cache, clock),
        RedisStatuses(client),
        close=client.aclose,
    )
