"""Money is set aside before a call and settled after it, whatever becomes of the call."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from llm_pool.catalog import ModelGroup, Price
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.policies import BudgetPolicy
from llm_pool.stores.budgets.base import Account, Hold, Spending
from llm_pool.stores.budgets.memory import MemoryBudgetStore
from llm_pool.types import EmbeddingRequest
from shared.attempts import Usage, sum_costs
from shared.errors import (
    ConfigurationError,
    LLMBudgetExceededError,
    LLMError,
    LLMOverloadedError,
    LLMStoreUnavailableError,
    LLMStreamBrokenError,
    LLMUnavailableError,
)
from tests.fakes.money_yard import CENT_A_TOKEN, FIVE_CENTS, FREE, AwayStore, SlowStore, Yard, build_yard, cap
from tests.fakes.moving_clock import START, MovingClock
from tests.fakes.scripted_provider import END, Script, ask, build_catalog, deploy
from tests.money import Step, play, steps


async def test_a_call_is_settled_to_what_it_cost() -> None:
    yard = build_yard(policy=cap("1"))
    response = await yard.complete(ask())
    assert response.cost_usd == FIVE_CENTS
    assert await yard.read() == Spending(FIVE_CENTS, Decimal(0), (await yard.read()).resets_at)


async def test_a_call_in_flight_holds_the_most_it_may_cost() -> None:
    script = Script(hangs=True)
    yard = build_yard(script, policy=cap("1"))
    asking = asyncio.create_task(yard.complete(ask()))
    await script.started.wait()
    assert (await yard.read()).held_usd == FIVE_CENTS
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ((await yard.read()).held_usd, await yard.spent()) == (0, 0)


async def test_of_sixty_four_calls_at_once_where_ten_fit_ten_are_answered_and_paid() -> None:
    yard = build_yard(policy=cap("0.5"))
    outcomes = await asyncio.gather(*(yard.complete(ask()) for _ in range(64)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, LLMBudgetExceededError)]
    assert (len(outcomes) - len(refused), len(refused)) == (10, 54)
    assert await yard.spent() == Decimal("0.5")


async def test_a_refusal_names_the_account_its_limit_and_when_it_resets() -> None:
    script = Script()
    yard = build_yard(script, policy=cap("0.04"))
    with pytest.raises(LLMBudgetExceededError) as caught:
        await yard.complete(ask())
    assert (caught.value.account, caught.value.limit_usd) == ("day", Decimal("0.04"))
    assert caught.value.resets_at == START.replace(day=2)
    assert caught.value.retry_after_seconds == 86_400 - 1_000
    assert script.asked == []


async def test_tenants_and_keys_have_caps_of_their_own() -> None:
    policy = BudgetPolicy(
        tenant_daily_usd=Decimal("0.05"), tenants={"big": Decimal(1)}, keys={"narrow": Decimal("0.05")}
    )
    yard = build_yard(policy=policy)
    await yard.complete(ask())
    with pytest.raises(LLMBudgetExceededError, match="the budget of tenant:acme"):
        await yard.complete(ask())
    narrow = replace(ask(), tenant_id="big", key_id="narrow")
    await yard.complete(narrow)
    with pytest.raises(LLMBudgetExceededError, match="the budget of key:narrow"):
        await yard.complete(narrow)
    await yard.complete(replace(narrow, key_id="other"))
    assert [await yard.spent(name) for name in ("day", "tenant:acme", "tenant:big", "key:narrow")] == [
        0,
        FIVE_CENTS,
        2 * FIVE_CENTS,
        FIVE_CENTS,
    ]


async def test_a_new_day_begins_with_the_whole_cap() -> None:
    yard = build_yard(policy=cap("0.05"))
    await yard.complete(ask())
    with pytest.raises(LLMBudgetExceededError):
        await yard.complete(ask())
    yard.clock.seconds += 86_400
    await yard.complete(ask())


async def test_one_reservation_covers_all_fallbacks_at_the_price_of_the_dearest() -> None:
    dear = deploy("b", price=Price(Decimal(20_000), Decimal(20_000)))
    catalog = build_catalog(
        ModelGroup("quality", (deploy("a", price=CENT_A_TOKEN),), fallbacks=("fast",), retries=0),
        ModelGroup("fast", (dear,), retries=0),
    )
    scripts = {"a": Script([LLMOverloadedError("down")]), "b": Script()}
    poor = Yard(catalog, scripts, cap("0.09"))
    with pytest.raises(LLMBudgetExceededError):
        await poor.complete(ask("quality"))
    yard = Yard(catalog, scripts, cap("0.1"))
    await yard.complete(ask("quality"))
    assert await yard.spent() == Decimal("0.1")


async def test_what_failed_everywhere_costs_nothing() -> None:
    yard = build_yard(Script([LLMOverloadedError("down")]), Script([LLMOverloadedError("down")]), policy=cap("1"))
    with pytest.raises(LLMUnavailableError):
        await yard.complete(ask())
    seen = await yard.read()
    assert (seen.spent_usd, seen.held_usd) == (0, 0)


async def test_an_answer_without_its_usage_is_charged_as_it_was_held() -> None:
    script = Script(streams=[["fi", "ne", replace(END, usage=None)]])
    yard = build_yard(script, policy=cap("1"))
    response = await yard.stream(ask())
    assert response.cost_usd is None
    assert await yard.spent() == FIVE_CENTS


async def test_a_stream_that_broke_after_its_first_text_is_charged_as_it_was_held() -> None:
    yard = build_yard(Script(streams=[["fi", LLMOverloadedError("gone")]]), policy=cap("1"))
    with pytest.raises(LLMStreamBrokenError):
        await yard.stream(ask())
    assert await yard.spent() == FIVE_CENTS


async def test_a_stream_that_its_reader_left_is_charged_as_it_was_held() -> None:
    script = Script(streams=[["fi"]], hangs=True)
    yard = build_yard(script, policy=cap("1"), store=SlowStore(MovingClock()))
    reading = asyncio.create_task(yard.stream(ask()))
    await script.started.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert ((await yard.read()).held_usd, await yard.spent()) == (0, FIVE_CENTS)


async def test_a_caller_who_cancels_again_and_again_does_not_stop_the_settling() -> None:
    script = Script(hangs=True)
    yard = build_yard(script, policy=cap("1"), store=SlowStore(MovingClock()))
    asking = asyncio.create_task(yard.complete(ask()))
    await script.started.wait()
    for _ in range(3):
        asking.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asking
    await yard.settlement.aclose()
    assert (await yard.read()).held_usd == 0


async def test_without_caps_and_tracker_nothing_is_reckoned() -> None:
    yard = build_yard(price=None)
    assert (await yard.complete(ask())).cost_usd is None


async def test_free_models_are_asked_when_all_money_is_gone() -> None:
    yard, tracker = build_yard(price=FREE, policy=cap("0")), BudgetTracker(0)
    held = await yard.store.reserve([Account("day", Decimal(0), Decimal(0))], Decimal(0), lease_seconds=60)
    assert isinstance(held, Hold)
    await yard.store.settle(held, FIVE_CENTS)
    tracker.settle(Decimal(0), FIVE_CENTS)
    await yard.complete(ask(), tracker)


def test_caps_refuse_a_start_in_which_money_could_leave_uncounted() -> None:
    with pytest.raises(ConfigurationError, match=r"the price of deployment 'a' .* is not known.*set the deployment's"):
        build_yard(price=None, policy=cap("1"))


@pytest.mark.parametrize(
    "policy",
    [
        BudgetPolicy(tenant_daily_usd=Decimal(1)),
        BudgetPolicy(tenants={"a": Decimal(1)}),
        BudgetPolicy(keys={"a": Decimal(1)}),
    ],
)
def test_every_kind_of_cap_needs_known_prices(policy: BudgetPolicy) -> None:
    with pytest.raises(ConfigurationError):
        build_yard(price=None, policy=policy)


async def test_vectors_are_held_for_what_they_read() -> None:
    yard = build_yard(policy=cap("0.03"))
    await yard.embed(EmbeddingRequest("fast", ("hello",)))
    assert await yard.spent() == Decimal("0.03")


async def test_nothing_is_spent_while_it_could_not_be_counted() -> None:
    script, tracker, clock = Script(), BudgetTracker(1), MovingClock()
    yard = build_yard(script, policy=cap("1"), store=AwayStore(clock, reserving=1), clock=clock)
    with pytest.raises(LLMStoreUnavailableError) as caught:
        await yard.complete(ask(), tracker)
    assert caught.value.parks
    assert (script.asked, tracker.remaining()) == ([], 1)
    await yard.complete(ask(), tracker)


async def test_an_answer_is_given_though_its_cost_cannot_be_entered_at_once() -> None:
    clock = MovingClock()
    yard = build_yard(policy=cap("1"), store=AwayStore(clock, settling=2), clock=clock)
    with capture_logs() as logs:
        assert (await yard.complete(ask())).cost_usd == FIVE_CENTS
        await yard.settlement.aclose()
    assert [log["event"] for log in logs] == ["budget_not_settled", "budget_not_settled"]
    assert clock.slept == [1, 4]
    assert await yard.spent() == FIVE_CENTS


async def test_spending_that_can_never_be_entered_stands_in_the_log() -> None:
    clock = MovingClock()
    yard = build_yard(policy=cap("1"), store=AwayStore(clock, settling=99), clock=clock)
    with capture_logs() as logs:
        await yard.complete(ask())
        await yard.settlement.aclose()
    assert (logs[-1]["event"], logs[-1]["usd"], logs[-1]["accounts"]) == ("spending_lost", "0.05", ["day"])


async def test_an_alert_is_given_once_when_its_share_is_spent() -> None:
    yard = build_yard(policy=cap("0.25", alert_at=0.8))
    for _ in range(3):
        await yard.complete(ask())
    assert yard.bell.taken == []
    for _ in range(2):
        await yard.complete(ask())
    (alert,) = yard.bell.taken
    assert (alert.account, alert.spent_usd, alert.limit_usd) == ("day", Decimal("0.2"), Decimal("0.25"))


@given(script=steps())
def test_money_is_neither_lost_nor_overdrawn_in_memory(script: list[Step]) -> None:
    asyncio.run(play(MemoryBudgetStore(MovingClock()), script))


outcomes = st.sampled_from(["fine", LLMOverloadedError("down")])


@settings(max_examples=50, deadline=None)
@given(st.lists(outcomes, min_size=1, max_size=20), st.lists(outcomes, min_size=1, max_size=20), st.integers(1, 30))
def test_the_days_spending_is_the_sum_of_what_the_ledger_says(
    first: list[str | LLMError], second: list[str | LLMError], calls: int
) -> None:
    async def run() -> None:
        yard = build_yard(Script(first), Script(second), policy=cap("0.8"))
        await asyncio.gather(*(yard.complete(ask()) for _ in range(calls)), return_exceptions=True)
        costs = [sum_costs(call.attempts) for call in yard.calls]
        assert await yard.spent() == sum(cost for cost in costs if cost is not None) <= Decimal("0.8")
        assert (await yard.read()).held_usd == 0

    asyncio.run(run())


async def test_each_attempt_is_written_down_with_its_cost() -> None:
    yard = build_yard(Script([LLMOverloadedError("down")]), Script())
    failed, answered = (await yard.complete(ask())).attempts
    assert (failed.cost_usd, answered.cost_usd, answered.usage) == (None, FIVE_CENTS, Usage(3, 2))
