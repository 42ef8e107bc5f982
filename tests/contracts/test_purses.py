"""What a purse is to every store of budgets: money of many requests, on whatever days they are, never exceeded."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal

import pytest

from llm_pool.stores.budgets.base import Account, BudgetStore, Full, Hold
from llm_pool.stores.budgets.memory import MemoryBudgetStore
from llm_pool.stores.budgets.redis import PREFIX, RedisBudgetStore
from shared.redis_client import open_redis
from tests.fakes.moving_clock import MovingClock
from tests.money import LEASE_SECONDS, allow, hold

DAY = 86_400
PURSE = Account("batch:1", Decimal(1), Decimal(10**6), resets=False)


@dataclass(frozen=True)
class Bank:
    """A store today, and the same money a day later."""

    today: BudgetStore
    pass_day: Callable[[], BudgetStore]


def open_memory_bank() -> Bank:
    clock = MovingClock()
    store = MemoryBudgetStore(clock)

    def pass_day() -> BudgetStore:
        clock.seconds += DAY
        return store

    return Bank(store, pass_day)


@pytest.fixture(params=["memory", "redis"])
async def bank(request: pytest.FixtureRequest) -> AsyncIterator[Bank]:
    if request.param == "memory":
        yield open_memory_bank()
        return
    async with open_redis(request.getfixturevalue("redis_url")) as client:
        yield Bank(RedisBudgetStore(client), lambda: RedisBudgetStore(client, ahead_seconds=DAY))


async def see(store: BudgetStore, *, resets: bool = False) -> tuple[Decimal, Decimal]:
    spending = await store.read("day" if resets else PURSE.name, resets=resets)
    return spending.spent_usd, spending.held_usd


async def test_what_is_spent_of_it_stays_spent_on_the_next_day(bank: Bank) -> None:
    held = await bank.today.reserve([PURSE, allow("1")], Decimal("0.8"), LEASE_SECONDS)
    assert isinstance(held, Hold)
    await bank.today.settle(held, Decimal("0.7"))
    tomorrow = bank.pass_day()
    assert await see(tomorrow) == (Decimal("0.7"), 0)
    assert await see(tomorrow, resets=True) == (0, 0)
    assert isinstance(await tomorrow.reserve([PURSE], Decimal("0.4"), LEASE_SECONDS), Full)
    await hold(tomorrow, PURSE, "0.3")


async def test_a_spent_one_refuses_and_of_the_other_accounts_nothing_is_held(bank: Bank) -> None:
    await bank.today.settle(await hold(bank.today, PURSE, "0.8"), Decimal("0.8"))
    full = await bank.today.reserve([allow("1"), PURSE], Decimal("0.4"), LEASE_SECONDS)
    assert isinstance(full, Full)
    assert full.account == PURSE
    assert await see(bank.today, resets=True) == (0, 0)
    assert await see(bank.today) == (Decimal("0.8"), 0)


async def test_what_a_call_holds_comes_back_as_far_as_it_cost_less(bank: Bank) -> None:
    held = await hold(bank.today, PURSE, "0.8")
    assert await see(bank.today) == (0, Decimal("0.8"))
    assert isinstance(await bank.today.reserve([PURSE], Decimal("0.4"), LEASE_SECONDS), Full)
    await bank.today.settle(held, Decimal("0.5"))
    assert await see(bank.today) == (Decimal("0.5"), 0)
    await hold(bank.today, PURSE, "0.4")


async def test_a_call_over_midnight_is_paid_from_it_all_the_same(bank: Bank) -> None:
    held = await hold(bank.today, PURSE, "0.8")
    tomorrow = bank.pass_day()
    await tomorrow.settle(held, Decimal("0.5"))
    assert await see(tomorrow) == (Decimal("0.5"), 0)


async def test_money_held_of_it_by_a_worker_that_died_comes_back(bank: Bank) -> None:
    await hold(bank.today, PURSE, "1")
    tomorrow = bank.pass_day()
    assert await see(tomorrow) == (0, 0)
    await hold(tomorrow, PURSE, "1")


async def test_redis_keeps_it_for_months(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        store = RedisBudgetStore(client)
        for step in ("reserve", "settle"):
            held = await hold(store, PURSE, "0.1")
            if step == "settle":
                await store.settle(held, Decimal("0.1"))
            assert await client.ttl(f"{PREFIX}{PURSE.name}:0") > 60 * DAY
