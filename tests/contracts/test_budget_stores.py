"""What every store of budgets does, in memory and in Redis: one suite over both."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol

import pytest
from redis.asyncio import Redis

from llm_pool.stores.budgets.base import BudgetStore, Full, Hold
from llm_pool.stores.budgets.memory import MemoryBudgetStore
from llm_pool.stores.budgets.redis import RedisBudgetStore
from shared.redis_client import open_redis
from tests.fakes.moving_clock import MovingClock
from tests.money import LEASE_SECONDS, allow, hold

DAY = 86_400


class Bank(Protocol):
    """A store whose time can be moved, and the ways to it that the workers of a fleet would have."""

    def stores(self) -> Sequence[BudgetStore]: ...

    def pass_time(self, seconds: int) -> None: ...

    def now(self) -> datetime: ...


class MemoryBank:
    """One process, so one way."""

    def __init__(self) -> None:
        self._clock = MovingClock()
        self._store = MemoryBudgetStore(self._clock)

    def stores(self) -> Sequence[BudgetStore]:
        return (self._store,)

    def pass_time(self, seconds: int) -> None:
        self._clock.seconds += seconds

    def now(self) -> datetime:
        return self._clock.now()


class RedisBank:
    """Four workers' clients. Their server's day begins at noon, so that none ends by itself during a test."""

    def __init__(self, clients: Sequence[Redis]) -> None:
        self._clients = clients
        seconds_of_day = int(datetime.now(UTC).timestamp()) % DAY
        self._ahead_seconds = DAY // 2 - seconds_of_day

    def stores(self) -> Sequence[BudgetStore]:
        return [RedisBudgetStore(client, ahead_seconds=self._ahead_seconds) for client in self._clients]

    def pass_time(self, seconds: int) -> None:
        self._ahead_seconds += seconds

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead_seconds)


@pytest.fixture(params=["memory", "redis"])
async def bank(request: pytest.FixtureRequest) -> AsyncIterator[Bank]:
    if request.param == "memory":
        yield MemoryBank()
        return
    url = request.getfixturevalue("redis_url")
    async with AsyncExitStack() as stack:
        yield RedisBank([await stack.enter_async_context(open_redis(url)) for _ in range(4)])


async def see(bank: Bank, name: str = "day") -> tuple[Decimal, Decimal]:
    spending = await bank.stores()[-1].read(name)
    return spending.spent_usd, spending.held_usd


async def test_nothing_was_spent_of_an_account_nobody_used(bank: Bank) -> None:
    assert await see(bank, "tenant:nobody") == (0, 0)


async def test_what_is_held_counts_as_gone_until_it_is_settled_to_what_it_cost(bank: Bank) -> None:
    store = bank.stores()[0]
    held = await hold(store, allow("1"), "0.6")
    assert await see(bank) == (0, Decimal("0.6"))
    assert isinstance(await store.reserve([allow("1")], Decimal("0.5"), LEASE_SECONDS), Full)
    await store.settle(held, Decimal("0.2"))
    assert await see(bank) == (Decimal("0.2"), 0)
    await hold(store, allow("1"), "0.8")


async def test_what_was_never_sent_is_released(bank: Bank) -> None:
    store = bank.stores()[0]
    await store.release(await hold(store, allow("1"), "1"))
    assert await see(bank) == (0, 0)


async def test_it_is_held_of_all_accounts_or_of_none(bank: Bank) -> None:
    store = bank.stores()[0]
    accounts = [allow("5"), allow("1", "tenant:acme"), allow("5", "key:k")]
    full = await store.reserve(accounts, Decimal(2), LEASE_SECONDS)
    assert isinstance(full, Full)
    assert full.account == accounts[1]
    assert [await see(bank, account.name) for account in accounts] == [(0, 0)] * 3
    held = await store.reserve(accounts, Decimal(1), LEASE_SECONDS)
    assert isinstance(held, Hold)
    assert [await see(bank, account.name) for account in accounts] == [(0, 1)] * 3
    await store.settle(held, Decimal("0.75"))
    assert [await see(bank, account.name) for account in accounts] == [(Decimal("0.75"), 0)] * 3


async def test_a_full_account_says_when_its_day_ends(bank: Bank) -> None:
    full = await bank.stores()[0].reserve([allow("1")], Decimal(2), LEASE_SECONDS)
    assert isinstance(full, Full)
    midnight = (bank.now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert full.resets_at == midnight
    assert full.retry_after_seconds == pytest.approx((midnight - bank.now()).total_seconds(), abs=2)


async def test_of_sixty_four_at_once_where_ten_fit_exactly_ten_pass(bank: Bank) -> None:
    stores = bank.stores()
    asking = (stores[index % len(stores)].reserve([allow("1")], Decimal("0.1"), LEASE_SECONDS) for index in range(64))
    outcomes = await asyncio.gather(*asking)
    assert sum(isinstance(outcome, Hold) for outcome in outcomes) == 10
    assert await see(bank) == (0, 1)


async def test_money_held_by_a_worker_that_died_comes_back(bank: Bank) -> None:
    await hold(bank.stores()[0], allow("1"), "1")
    bank.pass_time(LEASE_SECONDS - 1)
    assert isinstance(await bank.stores()[0].reserve([allow("1")], Decimal(1), LEASE_SECONDS), Full)
    bank.pass_time(2)
    await hold(bank.stores()[0], allow("1"), "1")
    assert await see(bank) == (0, 1)


async def test_a_call_longer_than_its_lease_is_paid_for_all_the_same(bank: Bank) -> None:
    held = await hold(bank.stores()[0], allow("1"), "0.5")
    bank.pass_time(LEASE_SECONDS + 1)
    assert await see(bank) == (0, 0)
    await bank.stores()[0].settle(held, Decimal("0.3"))
    assert await see(bank) == (Decimal("0.3"), 0)


async def test_every_day_begins_with_nothing_spent(bank: Bank) -> None:
    store = bank.stores()[0]
    await store.settle(await hold(store, allow("1"), "1"), Decimal(1))
    bank.pass_time(DAY)
    assert await see(bank) == (0, 0)
    await hold(bank.stores()[0], allow("1"), "1")


async def test_a_call_over_midnight_is_paid_from_the_day_it_began_in(bank: Bank) -> None:
    held = await hold(bank.stores()[0], allow("1"), "1")
    bank.pass_time(DAY)
    await bank.stores()[0].settle(held, Decimal(1))
    assert await see(bank) == (0, 0)
    bank.pass_time(-DAY)
    assert await see(bank) == (1, 0)


async def test_a_call_may_cost_more_than_was_held_for_it(bank: Bank) -> None:
    store = bank.stores()[0]
    await store.settle(await hold(store, allow("1"), "0.5"), Decimal("1.5"))
    assert await see(bank) == (Decimal("1.5"), 0)
    assert isinstance(await store.reserve([allow("1")], Decimal(0), LEASE_SECONDS), Full)


async def test_an_alert_is_due_once_a_day_for_each_account(bank: Bank) -> None:
    stores = bank.stores()
    day, tenant = allow("1", alert_usd="0.8"), allow("9", "tenant:acme", alert_usd="0.9")

    async def spend(usd: str) -> list[tuple[str, Decimal]]:
        held = await bank.stores()[0].reserve([day, tenant], Decimal(usd), LEASE_SECONDS)
        assert isinstance(held, Hold)
        dues = await stores[-1].settle(held, Decimal(usd))
        return [(due.account.name, due.spent_usd) for due in dues]

    assert await spend("0.79") == []
    assert await spend("0.01") == [("day", Decimal("0.8"))]
    assert await spend("0.1") == [("tenant:acme", Decimal("0.9"))]
    assert await spend("0.1") == []
    bank.pass_time(DAY)
    assert await spend("0.8") == [("day", Decimal("0.8"))]


async def test_sixty_four_that_settle_at_once_give_one_alert(bank: Bank) -> None:
    stores, account = bank.stores(), allow("64", alert_usd="32")
    holds = [await hold(stores[0], account, "1") for _ in range(64)]
    settling = (stores[index % len(stores)].settle(held, Decimal(1)) for index, held in enumerate(holds))
    dues = [due for given in await asyncio.gather(*settling) for due in given]
    assert [due.spent_usd for due in dues] == [32]


async def test_no_price_of_a_token_is_lost(bank: Bank) -> None:
    store = bank.stores()[0]
    token = Decimal("0.003625") / 1_000_000
    for _ in range(10):
        await store.settle(await hold(store, allow("1"), str(token)), token)
    assert await see(bank) == (10 * token, 0)
