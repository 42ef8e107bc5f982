"""A purse that many calls share: one that finds it held by the others waits for what comes back, and is not refused."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from llm_pool.middleware import budget
from llm_pool.stores.budgets.base import Account, Hold, Spending
from llm_pool.stores.budgets.memory import MemoryBudgetStore
from llm_pool.types import CompletionRequest, ProviderAnswer, Purse, Response
from shared.attempts import Usage
from shared.errors import LLMBudgetExceededError, LLMNoPermitError
from tests.fakes.money_yard import FIVE_CENTS, FREE, Yard, build_yard, cap
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import Script, ask
from tests.money import hold

EIGHT_CENTS = Decimal("0.08")
"""One call fits, and a second only once the first has cost less than it held."""
OURS = Account("batch:1", EIGHT_CENTS, Decimal(10**6), resets=False)
ONE_CENT = ProviderAnswer("fine", "scripted-1", "stop", Usage(1, 0))


class WatchedStore(MemoryBudgetStore):
    """Says when somebody looks what is held of a purse: a call is then about to wait, or to be refused."""

    def __init__(self, clock: MovingClock) -> None:
        super().__init__(clock)
        self.looked = asyncio.Event()

    async def read(self, account_name: str, *, resets: bool = True) -> Spending:
        self.looked.set()
        return await super().read(account_name, resets=resets)


@pytest.fixture(autouse=True)
def looks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PURSE_LOOK_SECONDS", 0.0)


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore(MovingClock())


def ask_from(purse_usd: Decimal = EIGHT_CENTS) -> CompletionRequest:
    return replace(ask(), purse=Purse("batch:1", purse_usd))


async def begin_waiting(yard: Yard, store: WatchedStore) -> asyncio.Task[Response]:
    asking = asyncio.create_task(yard.complete(ask_from()))
    async with asyncio.timeout(2):
        await store.looked.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asking.done()
    return asking


async def see(yard: Yard) -> tuple[Decimal, Decimal]:
    spending = await yard.store.read("batch:1", resets=False)
    return spending.spent_usd, spending.held_usd


async def test_a_call_waits_while_others_hold_the_money_and_goes_on_when_they_cost_less(store: WatchedStore) -> None:
    script = Script()
    yard = build_yard(script, store=store)
    others = await hold(store, OURS, "0.05")
    asking = await begin_waiting(yard, store)
    assert script.asked == []
    await store.settle(others, Decimal("0.01"))
    await asking
    assert await see(yard) == (Decimal("0.06"), 0)


async def test_a_call_that_waited_is_refused_once_the_others_have_spent_it(store: WatchedStore) -> None:
    script = Script()
    yard = build_yard(script, store=store)
    others = await hold(store, OURS, "0.05")
    asking = await begin_waiting(yard, store)
    await store.settle(others, FIVE_CENTS)
    with pytest.raises(LLMBudgetExceededError) as caught:
        await asyncio.wait_for(asking, 2)
    assert (caught.value.account, caught.value.limit_usd, caught.value.resets_at) == ("batch:1", EIGHT_CENTS, None)
    assert script.asked == []
    assert await see(yard) == (FIVE_CENTS, 0)


async def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing_held(store: WatchedStore) -> None:
    yard = build_yard(policy=cap("1"), store=store)
    others = await hold(store, OURS, "0.05")
    asking = await begin_waiting(yard, store)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await yard.settlement.aclose()
    assert await see(yard) == (0, FIVE_CENTS)
    assert (await yard.read("day")).held_usd == 0
    await store.release(others)
    assert await see(yard) == (0, 0)


async def test_nobody_waits_longer_than_the_call_may(store: WatchedStore) -> None:
    yard = build_yard(store=store)
    await hold(store, OURS, "0.05")
    asking = await begin_waiting(yard, store)
    yard.clock.seconds += 300
    with pytest.raises(LLMNoPermitError, match="batch:1") as caught:
        await asyncio.wait_for(asking, 2)
    assert caught.value.parks


async def test_a_daily_cap_is_not_waited_for(store: WatchedStore) -> None:
    yard = build_yard(policy=cap("0.08"), store=store)
    await hold(store, Account("day", EIGHT_CENTS, EIGHT_CENTS), "0.05")
    with pytest.raises(LLMBudgetExceededError) as caught:
        await yard.complete(ask_from(Decimal(1)))
    assert (caught.value.account, caught.value.resets_at is None) == ("day", False)
    assert await see(yard) == (0, 0)


@pytest.mark.parametrize(("usd", "steps", "answered"), [("0.5", ["fine"], 10), ("0.1", [ONE_CENT], 6)])
async def test_of_sixty_four_calls_at_once_as_many_are_answered_as_it_pays_for(
    usd: str, steps: Sequence[str | ProviderAnswer], answered: int
) -> None:
    yard = build_yard(Script(list(steps)))
    calls = (yard.complete(ask_from(Decimal(usd))) for _ in range(64))
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, LLMBudgetExceededError)]
    assert (len(outcomes) - len(refused), len(refused)) == (answered, 64 - answered)
    assert (await see(yard))[1] == 0
    assert (await see(yard))[0] <= Decimal(usd)


async def test_an_empty_purse_pays_for_what_is_free() -> None:
    yard = build_yard(price=FREE)
    await yard.complete(ask_from(Decimal(0)))


class SettlingStore(MemoryBudgetStore):
    """Another worker's call ends between the refusal and the look."""

    others: Hold | None = None

    async def read(self, account_name: str, *, resets: bool = True) -> Spending:
        if self.others is not None:
            await self.settle(self.others, Decimal("0.01"))
            self.others = None
        return await super().read(account_name, resets=resets)


async def test_money_that_came_back_before_the_look_is_asked_for_again() -> None:
    store = SettlingStore(MovingClock())
    yard = build_yard(store=store)
    store.others = await hold(store, OURS, "0.05")
    await asyncio.wait_for(yard.complete(ask_from()), 2)
    assert await see(yard) == (Decimal("0.06"), 0)


async def test_what_does_not_fit_beside_what_is_spent_is_refused_at_once(store: WatchedStore) -> None:
    yard = build_yard(store=store)
    await store.settle(await hold(store, OURS, "0.05"), Decimal("0.04"))
    await hold(store, OURS, "0.01")
    with pytest.raises(LLMBudgetExceededError):
        await asyncio.wait_for(yard.complete(ask_from()), 2)
