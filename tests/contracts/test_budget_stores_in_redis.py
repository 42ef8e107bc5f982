"""What budgets in Redis alone may suffer: lost answers, dead connections, a server that is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis

from llm_pool.stores.budgets.base import Full, Hold
from llm_pool.stores.budgets.redis import PREFIX, RedisBudgetStore
from shared.errors import LLMBudgetExceededError, LLMStoreUnavailableError
from shared.redis_client import open_redis
from tests.fakes.money_yard import build_yard, cap
from tests.fakes.redis_gate import RedisGate
from tests.fakes.scripted_provider import ask
from tests.money import LEASE_SECONDS, Step, allow, hold, play, steps

DAY = 86_400


class DroppingGate(RedisGate):
    """Stays open, and may drop whoever is passing."""

    async def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await self.open()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as client:
        yield client


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps())
def test_money_is_neither_lost_nor_overdrawn_in_redis(valkey_url: str, script: list[Step]) -> None:
    async def run() -> None:
        async with open_redis(valkey_url) as client:
            await client.flushall()
            await play(RedisBudgetStore(client), script)

    asyncio.run(run())


async def test_four_workers_with_sixty_four_calls_at_once_answer_the_ten_that_fit(redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_redis(redis_url)) for _ in range(4)]
        yards = [build_yard(policy=cap("0.5"), store=RedisBudgetStore(client)) for client in clients]
        calls = (yards[index % 4].complete(ask()) for index in range(64))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, LLMBudgetExceededError)]
        assert (len(outcomes) - len(refused), len(refused)) == (10, 54)
        assert await see(RedisBudgetStore(clients[0])) == (Decimal("0.5"), 0)


async def test_a_settling_that_is_sent_twice_spends_once(redis: Redis) -> None:
    store = RedisBudgetStore(redis)
    held = await hold(store, allow("1"), "0.5")
    await store.settle(held, Decimal("0.3"))
    assert await store.settle(held, Decimal("0.3")) == ()
    spending = await store.read("day")
    assert (spending.spent_usd, spending.held_usd) == (Decimal("0.3"), 0)


async def test_a_connection_that_dies_under_an_answer_loses_and_doubles_nothing(redis: Redis, redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        store = RedisBudgetStore(client)

        async def spend() -> None:
            await store.settle(await hold(store, allow("100"), "1"), Decimal(1))

        async def cut() -> None:
            for _ in range(20):
                await redis.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.002)

        calls = await asyncio.gather(*(spend() for _ in range(60)), cut(), return_exceptions=True)
        failed = [outcome for outcome in calls if outcome is not None]
        assert {type(error) for error in failed} <= {LLMStoreUnavailableError}
        spending = await store.read("day")
    assert 60 - len(failed) <= spending.spent_usd <= 60
    assert spending.spent_usd + spending.held_usd <= 60


@pytest.mark.parametrize("lost", ["reserve", "settle"])
async def test_a_step_whose_answer_was_lost_is_done_once(redis: Redis, redis_url: str, lost: str) -> None:
    gate = DroppingGate(redis_url)
    await gate.open()
    async with open_redis(gate.url) as client:
        store, seen_by = RedisBudgetStore(client), RedisBudgetStore(redis)
        await store.read("day")
        held = await hold(store, allow("10"), "1") if lost == "settle" else None
        gate.hold_up_answers()
        step = store.settle(held, Decimal(2)) if held else store.reserve([allow("10")], Decimal(2), LEASE_SECONDS)
        asking = asyncio.create_task(step)
        async with asyncio.timeout(2):
            while sum(await see(seen_by)) != 2:  # noqa: ASYNC110 - the server gives no event
                await asyncio.sleep(0.01)
        await gate.drop()
        await asking
        assert await see(seen_by) == ((2, 0) if lost == "settle" else (0, 2))
    await gate.shut()


async def see(store: RedisBudgetStore) -> tuple[Decimal, Decimal]:
    spending = await store.read("day")
    return spending.spent_usd, spending.held_usd


async def test_amounts_are_exact_where_a_float_would_not_be(redis: Redis) -> None:
    store, account = RedisBudgetStore(redis), allow("3000000")
    usd, speck = Decimal(1_000_000), Decimal("1e-12")
    await store.settle(await hold(store, account, "1000000"), usd + speck)
    assert (await store.read("day")).spent_usd == usd + speck
    assert isinstance(await store.reserve([account], 2 * usd, LEASE_SECONDS), Full)
    await hold(store, account, str(2 * usd - speck))


async def test_a_caller_who_leaves_before_the_answer_leaves_no_hold_behind(redis: Redis) -> None:
    store = RedisBudgetStore(redis)
    await store.read("day")
    await redis.client_pause(200, all=True)
    asking = asyncio.create_task(store.reserve([allow("1")], Decimal(1), LEASE_SECONDS))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(2):
        while not await redis.exists(f"{PREFIX}holds") or (await store.read("day")).held_usd:  # noqa: ASYNC110 - the server gives no event
            await asyncio.sleep(0.02)


async def test_every_key_of_a_day_ends_by_itself_and_holds_are_forgotten(redis: Redis) -> None:
    store = RedisBudgetStore(redis)
    full = await store.reserve([allow("1"), allow("0", "tenant:acme")], Decimal(1), LEASE_SECONDS)
    assert isinstance(full, Full)
    await store.settle(await hold(store, allow("1"), "1"), Decimal(1))
    days = [key async for key in redis.scan_iter(f"{PREFIX}*:*")]
    lives = [await redis.ttl(key) for key in days if key.rsplit(b":", 1)[1].isdigit()]
    assert len(lives) == 2
    assert min(lives) > 2 * DAY
    await RedisBudgetStore(redis, ahead_seconds=120).read("day")
    assert not await redis.exists(f"{PREFIX}holds", f"{PREFIX}leases")


async def test_a_store_that_is_away_says_so() -> None:
    async with open_redis("redis://127.0.0.1:1") as client:
        store = RedisBudgetStore(client)
        with pytest.raises(LLMStoreUnavailableError):
            await store.reserve([allow("1")], Decimal(1), LEASE_SECONDS)
        with pytest.raises(LLMStoreUnavailableError):
            await store.settle(Hold("x", (allow("1"),), Decimal(1), 1), Decimal(1))
        with pytest.raises(LLMStoreUnavailableError):
            await store.read("day")
