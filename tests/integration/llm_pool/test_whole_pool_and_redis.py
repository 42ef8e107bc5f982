"""A Redis that goes and comes back under whole pools: each part does without it as its page says, and none hangs."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import get_args

import pytest
from redis.asyncio import Redis

from llm_pool.catalog import Limits
from llm_pool.policies import BudgetPolicy, CooldownPolicy
from llm_pool.pool import Pool
from llm_pool.stores.cooldowns.base import build_key
from llm_pool.types import CompletionResponse
from shared.errors import LLMStoreUnavailableError, LLMUnavailableError
from tests.fakes.cancelling import When, run_cancelling
from tests.fakes.redis_gate import RedisGate, open_redis_gate
from tests.fakes.whole_pool import COST, POLICIES, Yard, after, answer, ask, open_yard, refuse

NO_CAPS = replace(POLICIES, budget=BudgetPolicy())


@pytest.fixture
async def yard(redis_url: str) -> AsyncIterator[Yard]:
    async with open_yard(redis_url) as opened:
        opened.minds_leases = False
        yield opened


@pytest.fixture
async def gate(redis_url: str) -> AsyncIterator[RedisGate]:
    async with open_redis_gate(redis_url) as gate:
        yield gate


async def ask_many(pool: Pool, number: int) -> list[CompletionResponse | BaseException]:
    asking = (pool.complete(ask(f"{number} at {time.monotonic()}")) for number in range(number))
    return await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.parametrize("loses_all", [True, False])
async def test_without_caps_calls_are_answered_all_the_time(yard: Yard, gate: RedisGate, loses_all: bool) -> None:
    yard.policies = NO_CAPS
    await yard.serve("a")
    yard.servers["a"].behave = after(0.05, answer())
    pool = yard.open(redis_url=gate.url)
    under_way = asyncio.create_task(ask_many(pool, 10))
    await yard.wait_until_asked(10)
    await gate.shut()
    if loses_all:
        async with Redis.from_url(yard.redis_url or "") as client:
            await client.flushall()
    started = time.monotonic()
    outcomes = [*await under_way, *await ask_many(pool, 20)]
    assert time.monotonic() - started < 1.0
    await gate.open()
    outcomes += await ask_many(pool, 10)
    assert {type(outcome) for outcome in outcomes} == {CompletionResponse}
    assert yard.count_asked() == {"a": 40}
    # Looked for once a second, it is told then what ended meanwhile.
    await yard.check_nothing_is_left(2.5)
    used = await yard.read_permits("a")
    assert used["tokens_per_minute"] <= 40 * 16
    assert used["requests_per_minute"] <= 40


async def test_with_caps_nothing_is_spent_that_could_not_be_counted(yard: Yard, gate: RedisGate) -> None:
    await yard.serve("a")
    yard.servers["a"].behave = after(0.1, answer())
    pool = yard.open(redis_url=gate.url)
    under_way = asyncio.create_task(ask_many(pool, 5))
    await yard.wait_until_asked(5)
    await gate.shut()
    assert {type(outcome) for outcome in await ask_many(pool, 5)} == {LLMStoreUnavailableError}
    assert {type(outcome) for outcome in await under_way} == {CompletionResponse}
    assert yard.count_asked() == {"a": 5}
    await gate.open()
    assert {type(outcome) for outcome in await ask_many(pool, 5)} == {CompletionResponse}
    await yard.check_nothing_is_left(3.0)
    assert await yard.spent() == 10 * COST


async def test_limits_and_cooldowns_hold_in_each_process_meanwhile(yard: Yard, gate: RedisGate) -> None:
    yard.policies = replace(NO_CAPS, cooldown=CooldownPolicy(failures=2))
    yard.limits = Limits(requests_per_minute=12)
    await yard.serve("a", "b")
    yard.servers["b"].behave = refuse(500)
    pool = yard.open(yard.group("b", "a", retries=0), redis_url=gate.url)
    await pool.complete(ask("so that it knows its share"))
    await gate.shut()
    outcomes = []
    for number in range(14):
        asking = pool.complete(ask(f"question {number}", timeout_seconds=1.0))
        outcomes += await asyncio.gather(asking, return_exceptions=True)
    answered = sum(isinstance(outcome, CompletionResponse) for outcome in outcomes)
    assert {type(outcome) for outcome in outcomes} == {CompletionResponse, LLMUnavailableError}
    assert answered == 11
    # What was known together before counts no more: two failures in a row that it saw itself.
    assert yard.count_asked() == {"a": 12, "b": 3}


async def test_a_redis_that_hangs_is_noticed_once_and_then_holds_nobody_up(yard: Yard, gate: RedisGate) -> None:
    yard.policies = NO_CAPS
    await yard.serve("a")
    pool = yard.open(redis_url=gate.url)
    await pool.complete(ask("while it is there"))
    gate.hold_up()
    started = time.monotonic()
    assert {type(outcome) for outcome in await ask_many(pool, 10)} == {CompletionResponse}
    noticed = time.monotonic()
    assert {type(outcome) for outcome in await ask_many(pool, 10)} == {CompletionResponse}
    assert noticed - started < 4.5, "cache, cooldowns and permits are asked in turn"
    assert time.monotonic() - noticed < 0.5
    await gate.shut()
    await gate.open()
    await yard.check_nothing_is_left(3.0)


@pytest.mark.parametrize("closes_at_once", [True, False])
async def test_answers_that_never_arrive_leave_nothing_for_long(
    yard: Yard, gate: RedisGate, closes_at_once: bool
) -> None:
    """The server takes what it is told, and nobody hears of it."""
    await yard.serve("a")
    pool = yard.open(redis_url=gate.url)
    await pool.complete(ask("while it is there"))
    gate.hold_up_answers()
    task = asyncio.create_task(pool.complete(ask("hm")))
    await asyncio.sleep(0.2 if closes_at_once else 2.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await gate.shut()
    await gate.open()
    if closes_at_once:
        await pool.aclose()
    await yard.check_nothing_is_left(3.0)


async def test_money_that_was_held_without_an_answer_is_given_back_when_it_is_there_again(
    yard: Yard, gate: RedisGate
) -> None:
    await yard.serve("a")
    pool = yard.open(redis_url=gate.url)
    await pool.complete(ask("while it is there", temperature=1.0))
    gate.hold_up_answers()
    with pytest.raises(LLMStoreUnavailableError):
        await pool.complete(ask("hm", temperature=1.0))
    assert (await yard.read_leavings()).held_usd == COST
    await gate.shut()
    await gate.open()
    await pool.complete(ask("and now", temperature=1.0))
    await yard.check_nothing_is_left()
    assert await yard.spent() == 2 * COST


@pytest.mark.parametrize("when", get_args(When))
async def test_what_the_cancelled_give_back_arrives_before_their_pool_is_closed(
    yard: Yard, gate: RedisGate, when: When
) -> None:
    yard.minds_leases = True
    await yard.serve("a")
    (deployment,) = yard.group().deployments
    gate.delay_seconds = 0.005
    for at in range(1, 100):
        await yard.open_half(deployment)
        pool = yard.open(redis_url=gate.url)
        was_cancelled = await run_cancelling(pool.complete(ask(f"question {at}")), at, when)
        await pool.aclose()
        assert (await yard.read_leavings()).are_none
        admission = await yard.observer.cooldowns.admit(build_key(deployment), 1.0)
        assert admission.way in ("probe", "ramp"), "another's place is still taken"
        await yard.observer.cooldowns.release(admission)
        if not was_cancelled:
            break
    assert at > 4
