"""Every store of statuses does the same: the latest word holds, counts of several processes are added up."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from llm_pool.pool_status import Answering, DeploymentQuota, PoolStatus, QuotaInfo
from llm_pool.stores.statuses.base import KEPT_FOR, StatusStore, StatusStoreUnavailableError
from llm_pool.stores.statuses.memory import MemoryBoard, MemoryStatuses
from llm_pool.stores.statuses.redis import QUOTAS, RedisStatuses
from shared.redis_client import open_redis
from tests.fakes.moving_clock import START, MovingClock

NOW = START + timedelta(seconds=1_000)
MIDNIGHT = START + timedelta(days=1)
OpenStore = Callable[[], StatusStore]
"""Each call is another process."""


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


@pytest.fixture(params=["memory", "redis"])
async def open_store(request: pytest.FixtureRequest, clock: MovingClock) -> AsyncIterator[OpenStore]:
    if request.param == "memory":
        board = MemoryBoard()
        yield lambda: MemoryStatuses(board, clock)
        return
    client = open_redis(request.getfixturevalue("redis_url"))
    yield lambda: RedisStatuses(client, clock)
    await client.aclose()


def told(deployment: str = "a", remaining: int = 60) -> DeploymentQuota:
    info = QuotaInfo("requests", "minute", 100, remaining, 100 - remaining, NOW + timedelta(seconds=30), NOW, False)
    return DeploymentQuota(deployment, "openai", "gpt", (info,))


def counted(used: int, *, limit: int | None = None, deployment: str = "a") -> DeploymentQuota:
    remaining = None if limit is None else limit - used
    info = QuotaInfo("requests", "day", limit, remaining, used, MIDNIGHT, NOW, False, is_counted=True)
    return DeploymentQuota(deployment, "ollama", "qwen", (info,))


def refused(resets_at: datetime | None) -> DeploymentQuota:
    info = QuotaInfo("requests", "minute", 100, 0, 100, resets_at, NOW, True)
    return DeploymentQuota("a", "gemini", "gemini", (info,))


def answering(group: str, deployment: str = "a", seconds: float = 0.0) -> Answering:
    return Answering(group, deployment, "openai", "gpt", NOW + timedelta(seconds=seconds))


async def test_what_one_process_tells_another_reads(open_store: OpenStore) -> None:
    quotas, answers = (told("a"), told("b")), (answering("fast"), answering("quality", "b"))
    await open_store().publish(quotas, answers)
    assert await open_store().read() == PoolStatus(quotas, answers)


async def test_nothing_told_is_nothing_known(open_store: OpenStore) -> None:
    await open_store().publish((), ())
    assert await open_store().read() == PoolStatus()


async def test_the_latest_word_holds_whoever_said_it(open_store: OpenStore) -> None:
    await open_store().publish([told(remaining=60)], [answering("fast", "a")])
    await open_store().publish([told(remaining=50)], [answering("fast", "b", seconds=1)])
    status = await open_store().read()
    assert [quota.quotas[0].remaining for quota in status.quotas] == [50]
    assert [each.deployment for each in status.answering] == ["b"]


async def test_counts_of_several_processes_are_added_up_and_a_word_said_twice_counts_once(
    open_store: OpenStore,
) -> None:
    first, second = open_store(), open_store()
    for store, used in ((first, 3), (second, 4), (second, 5), (second, 5)):
        await store.publish([counted(used, limit=10)], ())
    (quota,) = (await first.read()).quotas
    assert [(info.used, info.limit, info.remaining) for info in quota.quotas] == [(8, 10, 2)]


async def test_counts_of_another_day_are_not_added(open_store: OpenStore) -> None:
    yesterday = counted(100)
    info = replace(yesterday.quotas[0], resets_at=MIDNIGHT - timedelta(days=1))
    await open_store().publish([replace(yesterday, quotas=(info,))], ())
    await open_store().publish([counted(2)], ())
    (quota,) = (await open_store().read()).quotas
    assert [info.used for info in quota.quotas] == [2]


async def test_what_the_provider_told_stands_before_what_was_counted(open_store: OpenStore) -> None:
    await open_store().publish([counted(3)], ())
    await open_store().publish([told(remaining=60)], ())
    (quota,) = (await open_store().read()).quotas
    assert [(info.remaining, info.is_counted) for info in quota.quotas] == [(60, False)]


@pytest.mark.parametrize("resets_at", [None, NOW + timedelta(seconds=30)])
async def test_a_count_that_came_after_what_was_told_is_over_stands(
    open_store: OpenStore, resets_at: datetime | None
) -> None:
    await open_store().publish([refused(resets_at)], ())
    later = counted(3)
    info = replace(later.quotas[0], heard_at=NOW + timedelta(seconds=31))
    await open_store().publish([replace(later, quotas=(info,))], ())
    (quota,) = (await open_store().read()).quotas
    assert [(info.used, info.is_counted) for info in quota.quotas] == [(3, True)]


async def test_a_refusal_that_names_no_reset_is_shown_for_its_period(open_store: OpenStore, clock: MovingClock) -> None:
    clock.seconds = 1_000.0
    await open_store().publish([refused(None)], ())
    clock.seconds += 59
    assert (await open_store().read()).quotas == (refused(None),)
    clock.seconds += 1
    assert (await open_store().read()).quotas == ()


async def test_what_nobody_told_for_two_days_is_gone(open_store: OpenStore, clock: MovingClock) -> None:
    await open_store().publish([told("a")], [answering("fast")])
    clock.seconds += KEPT_FOR.total_seconds() + 60
    assert await open_store().read() == PoolStatus()


async def test_the_current_provider_is_that_of_the_latest_answer(open_store: OpenStore) -> None:
    late = replace(answering("quality", seconds=5), provider="anthropic")
    await open_store().publish((), [late, answering("fast")])
    assert (await open_store().read()).current_provider == "anthropic"


async def test_redis_keeps_nothing_for_ever(redis_url: str) -> None:
    client = open_redis(redis_url)
    await RedisStatuses(client).publish([told()], [answering("fast")])
    keys = await client.keys("*")
    assert len(keys) == 2
    for key in keys:
        assert 0 < await client.ttl(key) <= KEPT_FOR.total_seconds()
    await client.aclose()


async def test_what_another_version_wrote_in_redis_is_passed_over(redis_url: str, clock: MovingClock) -> None:
    client = open_redis(redis_url)
    store = RedisStatuses(client, clock)
    await client.hset(QUOTAS, mapping={"x": b"{}", "y": b"\xff"})
    await store.publish([told()], ())
    assert [quota.deployment for quota in (await store.read()).quotas] == ["a"]
    await client.aclose()


async def test_a_redis_that_is_not_there_is_one_typed_error() -> None:
    client = open_redis("redis://127.0.0.1:1/0")
    store = RedisStatuses(client)
    with pytest.raises(StatusStoreUnavailableError):
        await store.read()
    with pytest.raises(StatusStoreUnavailableError):
        await store.publish([told()], ())
    await client.aclose()
