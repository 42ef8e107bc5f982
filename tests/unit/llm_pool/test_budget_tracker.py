"""The purse of one chain of calls: never overdrawn by threads, tasks or floats."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_pool.money.budget_tracker import BudgetTracker
from shared.errors import InputError, LLMBudgetExceededError, LLMError, LLMOverloadedError
from tests.fakes.money_yard import FIVE_CENTS, build_yard, cap
from tests.fakes.scripted_provider import Script, ask

amounts = st.decimals(0, 1, places=6)


def test_what_is_held_is_gone_until_it_is_settled() -> None:
    tracker = BudgetTracker("1")
    tracker.reserve(Decimal("0.7"))
    assert (tracker.spent, tracker.remaining()) == (0, Decimal("0.3"))
    tracker.settle(Decimal("0.7"), Decimal("0.2"))
    assert (tracker.spent, tracker.remaining()) == (Decimal("0.2"), Decimal("0.8"))


def test_a_reservation_beyond_the_rest_is_refused_and_takes_nothing() -> None:
    tracker = BudgetTracker(1)
    tracker.reserve(Decimal("0.6"))
    with pytest.raises(LLMBudgetExceededError, match="does not reset by itself") as caught:
        tracker.reserve(Decimal("0.41"))
    assert (caught.value.account, caught.value.limit_usd, caught.value.resets_at) == ("call", 1, None)
    assert tracker.remaining() == Decimal("0.4")
    tracker.reserve(Decimal("0.4"))


def test_a_total_given_as_a_float_is_what_its_digits_say() -> None:
    tracker = BudgetTracker(0.3)
    for _ in range(3):
        tracker.reserve(Decimal("0.1"))
    assert tracker.remaining() == 0


@pytest.mark.parametrize("total", [float("nan"), float("inf"), -1, "much", "NaN"])
def test_a_total_that_is_no_amount_is_refused(total: float | str) -> None:
    with pytest.raises(InputError, match="budget_tracker: its total is"):
        BudgetTracker(total)


def test_many_threads_take_no_more_than_there_is() -> None:
    tracker, together = BudgetTracker(10), threading.Barrier(16)

    def take(_: int) -> int:
        together.wait()
        taken = 0
        for _ in range(50):
            try:
                tracker.reserve(Decimal("0.1"))
            except LLMBudgetExceededError:
                continue
            taken += 1
        return taken

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(take, range(16))) == 100
    assert tracker.remaining() == 0


@given(st.lists(st.tuples(amounts, amounts), max_size=30))
def test_the_purse_agrees_with_its_sums(calls: list[tuple[Decimal, Decimal]]) -> None:
    tracker, spent, held = BudgetTracker(5), Decimal(0), Decimal(0)
    open_calls = []
    for usd, cost in calls:
        try:
            tracker.reserve(usd)
        except LLMBudgetExceededError:
            assert spent + held + usd > 5
            continue
        held += usd
        open_calls.append((usd, cost))
        if len(open_calls) > 3:
            usd, cost = open_calls.pop(0)
            tracker.settle(usd, cost)
            held, spent = held - usd, spent + cost
        assert (tracker.spent, tracker.remaining()) == (spent, 5 - spent - held)
    for usd, cost in open_calls:
        tracker.settle(usd, cost)
    assert tracker.remaining() == 5 - tracker.spent


async def test_a_tracker_refuses_a_call_whose_cost_nobody_could_tell() -> None:
    script = Script()
    yard = build_yard(script, price=None)
    with pytest.raises(InputError, match="budget_tracker: the price of deployment 'a'"):
        await yard.complete(ask(), BudgetTracker(1))
    assert script.asked == []


async def test_a_chain_of_calls_spends_from_one_purse() -> None:
    first, second = build_yard(), build_yard()
    tracker = BudgetTracker("0.12")
    await first.complete(ask(), tracker)
    await second.complete(ask(), tracker)
    assert (tracker.spent, tracker.remaining()) == (Decimal("0.1"), Decimal("0.02"))
    with pytest.raises(LLMBudgetExceededError, match="the budget of call"):
        await first.complete(ask(), tracker)


async def test_many_at_once_over_several_pools_do_not_overdraw_the_purse() -> None:
    pools, tracker = [build_yard() for _ in range(3)], BudgetTracker("0.5")
    calls = (pools[index % 3].complete(ask(), tracker) for index in range(64))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, LLMBudgetExceededError) for outcome in outcomes) == 54
    assert (tracker.spent, tracker.remaining()) == (Decimal("0.5"), 0)


async def test_the_purse_gets_back_what_was_held_for_a_call_that_failed_or_was_cancelled() -> None:
    tracker, script = BudgetTracker(1), Script(hangs=True)
    with pytest.raises(LLMError):
        await build_yard(Script([LLMOverloadedError("down")])).complete(ask(), tracker)
    asking = asyncio.create_task(build_yard(script).complete(ask(), tracker))
    await script.started.wait()
    assert tracker.remaining() == 1 - FIVE_CENTS
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert tracker.remaining() == 1


async def test_the_purse_gets_back_what_a_full_cap_refused() -> None:
    tracker = BudgetTracker(1)
    with pytest.raises(LLMBudgetExceededError, match="the budget of day"):
        await build_yard(policy=cap("0.01")).complete(ask(), tracker)
    assert tracker.remaining() == 1
