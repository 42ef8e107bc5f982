"""Pools with all their middlewares, over stores in memory and on Redis, asking real servers: what must always hold."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal

import pytest
from aiohttp import web

from llm_pool.call import RunConfig
from llm_pool.catalog import Limits, ModelGroup
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.policies import BudgetPolicy, CooldownPolicy
from llm_pool.pool import Pool
from llm_pool.types import CompletionResponse, Tool
from shared.attempts import sum_costs
from shared.errors import (
    LLMBudgetExceededError,
    LLMContextTooLongError,
    LLMNoPermitError,
    LLMStreamBrokenError,
    LLMTimeoutError,
    LLMUnavailableError,
    LLMUnsupportedError,
)
from tests.fakes.provider_server import OPENAI, hang_up, never_answer, reset, send_json, send_stream
from tests.fakes.whole_pool import ANSWER_TOKENS, COST, Yard, after, answer, ask, first, refuse


def open_pools(yard: Yard, number: int, **fields: object) -> list[Pool]:
    """As many processes on one Redis; stores in memory are one process's."""
    catalog = yard.group(**fields)
    return [yard.open(catalog) for _ in range(number if yard.redis_url else 1)]


async def test_sixty_four_calls_at_once_where_the_day_has_money_for_ten(yard: Yard) -> None:
    budget = BudgetPolicy(daily_usd=10 * COST)
    yard.policies = replace(yard.policies, budget=budget)
    await yard.serve("a")
    yard.servers["a"].behave = after(0.05, answer())
    pools = open_pools(yard, 4)
    asking = (pools[n % len(pools)].complete(ask(f"question {n}")) for n in range(64))
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    answers = [outcome for outcome in outcomes if isinstance(outcome, CompletionResponse)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, LLMBudgetExceededError)]
    assert (len(answers), len(refusals), yard.count_asked()) == (10, 54, {"a": 10})
    assert {refusal.account for refusal in refusals} == {"day"}
    assert await yard.spent() == sum(sum_costs(answer.attempts) for answer in answers) == 10 * COST


async def test_caps_of_tenants_and_keys_bind_beside_the_days(yard: Yard) -> None:
    budget = BudgetPolicy(daily_usd=100 * COST, tenants={"acme": 3 * COST}, keys={"k1": 2 * COST})
    yard.policies = replace(yard.policies, budget=budget)
    await yard.serve("a")
    (pool,) = open_pools(yard, 1)
    asking = (pool.complete(ask(f"question {n}", key_id="k1" if n % 2 else None)) for n in range(20))
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(outcome, CompletionResponse) for outcome in outcomes) == 3
    accounts = {outcome.account for outcome in outcomes if isinstance(outcome, LLMBudgetExceededError)}
    assert accounts <= {"tenant:acme", "key:k1"}
    assert await yard.spent() == await yard.spent("tenant:acme") == 3 * COST
    assert await yard.spent("key:k1") <= 2 * COST
    assert yard.count_asked() == {"a": 3}


async def test_fifty_equal_requests_at_once_are_one_call(yard: Yard) -> None:
    await yard.serve("a")
    yard.servers["a"].behave = after(0.1, answer())
    pools = open_pools(yard, 3)
    answers = await asyncio.gather(*(pools[n % len(pools)].complete(ask()) for n in range(50)))
    assert yard.count_asked() == {"a": 1}
    assert sum(not answer.cached for answer in answers) == 1
    assert {answer.content for answer in answers} == {"fine"}
    assert await yard.spent() == COST


async def test_when_the_first_of_equal_requests_fails_each_process_asks_once(yard: Yard) -> None:
    await yard.serve("a")
    yard.servers["a"].behave = after(0.1, refuse(400))
    pools = open_pools(yard, 3)
    asking = (pools[n % len(pools)].complete(ask()) for n in range(50))
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(outcome).__name__ for outcome in outcomes} == {"LLMInvalidRequestError"}
    assert sum(len(outcome.attempts) for outcome in outcomes) == len(pools)
    assert yard.count_asked() == {"a": len(pools)}


async def test_when_the_first_of_equal_requests_is_cancelled_another_asks_in_its_place(yard: Yard) -> None:
    await yard.serve("a")
    yard.servers["a"].behave = first(never_answer, after(0.05, answer()))
    pools = open_pools(yard, 3)
    leader = asyncio.create_task(pools[0].complete(ask()))
    await asyncio.wait_for(yard.servers["a"].asked.wait(), 2)
    others = [asyncio.create_task(pools[n % len(pools)].complete(ask())) for n in range(49)]
    await asyncio.sleep(0.05)
    leader.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*others), 3)
    assert yard.count_asked() == {"a": 2}
    assert sum(not answer.cached for answer in answers) == 1


async def test_a_refused_deployment_is_left_alone_until_its_time_then_probed_then_ramped(yard: Yard) -> None:
    yard.policies = replace(yard.policies, cooldown=CooldownPolicy(ramp_seconds=0.6))
    await yard.serve("a", "b")
    asked_at: list[float] = []
    refusals = [refuse(429, {"retry-after": "0.4"})]

    async def take_note(request: web.Request) -> web.StreamResponse:
        asked_at.append(time.monotonic())
        await asyncio.sleep(0.05)
        return await (refusals.pop() if refusals else answer())(request)

    yard.servers["a"].behave = take_note
    pools = open_pools(yard, 2, retries=0)
    assert (await pools[0].complete(ask("the first"))).deployment == "b"
    refused_at = time.monotonic()
    numbers = iter(range(10_000))

    async def keep_asking(pool: Pool) -> None:
        while time.monotonic() < refused_at + 1.0:
            response = await pool.complete(ask(f"question {next(numbers)}"))
            assert response.deployment == "b" or time.monotonic() > refused_at + 0.35
            assert response.latency_seconds < 0.3
            await asyncio.sleep(0.02)

    await asyncio.gather(*(keep_asking(pools[n % len(pools)]) for n in range(8)))
    later = [moment - refused_at for moment in asked_at[1:]]
    assert later[0] > 0.34, "it was asked before its time"
    assert later[1] > later[0] + 0.045, "more than one went as a probe"
    in_first_step = [moment for moment in later if later[0] + 0.05 < moment < later[0] + 0.15]
    assert 1 <= len(in_first_step) <= 3, "the ramp begins with one at once"
    assert len(later) > 10


async def test_faults_of_streams_are_settled_rightly(yard: Yard) -> None:
    await yard.serve("a", "b")
    (pool,) = open_pools(yard, 1, retries=0)
    yard.servers["a"].behave = first(hang_up, send_stream(OPENAI, OPENAI.pieces(["fi"]), then=reset), answer())
    assert [chunk.delta async for chunk in pool.stream(ask())][-1] == ""
    assert (yard.count_asked(), await yard.spent()) == ({"a": 1, "b": 1}, COST)
    with pytest.raises(LLMStreamBrokenError) as caught:
        [chunk async for chunk in pool.stream(ask())]
    assert caught.value.partial_text == "fi"
    await yard.check_nothing_is_left()
    # What was begun is charged at its bound, as nobody told what it cost; what never began is not.
    assert (yard.count_asked(), await yard.spent()) == ({"a": 2, "b": 1}, 2 * COST)
    used = await yard.read_permits("a")
    assert (used["tokens_per_minute"], used["requests_per_minute"]) == (0, 2)


async def test_who_leaves_a_stream_early_closes_the_socket_and_pays_the_bound(yard: Yard) -> None:
    await yard.serve("a")
    yard.servers["a"].behave = send_stream(OPENAI, OPENAI.pieces(["fi"]), then=never_answer)
    (pool,) = open_pools(yard, 1)
    async with aclosing(pool.stream(ask())) as chunks:
        assert (await anext(chunks)).delta == "fi"
    await asyncio.wait_for(yard.servers["a"].hung_up.wait(), 1)
    await yard.check_nothing_is_left()
    assert await yard.spent() == COST


async def test_a_purse_and_the_caps_are_charged_alike(yard: Yard) -> None:
    await yard.serve("a")
    yard.servers["a"].behave = first(refuse(500), answer())
    (pool,) = open_pools(yard, 1)
    purse = BudgetTracker(COST)
    await pool.complete(ask(), RunConfig(budget_tracker=purse))
    assert (purse.spent, await yard.spent()) == (COST, COST)
    assert (await pool.complete(ask(), RunConfig(budget_tracker=BudgetTracker(COST)))).cached
    with pytest.raises(LLMBudgetExceededError):
        await pool.complete(ask("another"), RunConfig(budget_tracker=purse))


async def fail_in_time(pool: Pool, expected: type[Exception], content: str = "hello") -> None:
    started = time.monotonic()
    with pytest.raises(expected):
        await pool.complete(ask(content, timeout_seconds=0.3))
    assert time.monotonic() - started < 0.45


async def test_no_wait_goes_beyond_the_deadline(yard: Yard) -> None:
    yard.limits = Limits(in_flight=1)
    await yard.serve("a", "b")
    yard.servers["b"].behave = refuse(503, {"retry-after": "30"})
    await fail_in_time(yard.open(yard.group("b")), LLMUnavailableError)
    yard.servers["a"].behave = never_answer
    pool = yard.open(yard.group("a"))
    await fail_in_time(pool, LLMUnavailableError)
    leader = asyncio.create_task(pool.complete(ask("the same")))
    await asyncio.sleep(0.05)
    await fail_in_time(pool, LLMTimeoutError, "the same")
    await fail_in_time(pool, LLMUnavailableError, "one that finds no permit")
    leader.cancel()


async def test_who_has_little_time_waits_for_a_place_that_may_be_free_soon(yard: Yard) -> None:
    yard.limits = Limits(in_flight=1)
    await yard.serve("a")
    yard.servers["a"].behave = after(0.1, answer())
    pool = yard.open()
    asking = (pool.complete(ask(f"question {number}", timeout_seconds=0.8)) for number in range(3))
    assert len(await asyncio.gather(*asking)) == 3
    assert yard.servers["a"].most_in_flight == 1


async def test_an_unpermitted_call_says_when_to_come_again(yard: Yard) -> None:
    yard.limits = Limits(requests_per_minute=1)
    await yard.serve("a")
    pool = yard.open()
    await pool.complete(ask("one"))
    with pytest.raises(LLMUnavailableError) as caught:
        await pool.complete(ask("two", timeout_seconds=0.3))
    assert isinstance(caught.value.__cause__, LLMNoPermitError)
    assert 50 < (caught.value.retry_after_seconds or 0) < 62
    assert caught.value.attempts == ()


async def test_quotas_that_a_provider_tells_lower_our_view_for_all(yard: Yard) -> None:
    await yard.serve("a", "b")
    told = {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "1"}
    yard.servers["a"].behave = answer(headers={**told, "x-ratelimit-reset-requests": "30s"})
    one, *others = open_pools(yard, 2)
    await one.complete(ask("one"))
    await (others or [one])[0].complete(ask("two"))
    answers = await asyncio.gather(*(one.complete(ask(f"more {n}")) for n in range(5)))
    assert {answer.deployment for answer in answers} == {"b"}
    assert yard.count_asked() == {"a": 2, "b": 5}
    (quota,) = (quota for quota in (await one.get_status()).quotas if quota.deployment == "a")
    assert quota.quotas[0].is_warning


async def test_a_refusal_without_headers_is_got_over(yard: Yard) -> None:
    await yard.serve("a")
    yard.servers["a"].behave = first(refuse(429), refuse(429), answer())
    response = await yard.open().complete(ask())
    assert [attempt.error_type for attempt in response.attempts] == ["LLMRateLimitedError"] * 2 + [None]


async def test_fallback_groups_and_what_they_fall_back_on(yard: Yard) -> None:
    await yard.serve("a", "b")
    quality = ModelGroup("quality", (yard.deploy("a"),), fallbacks=("fast",), fall_back_on=("too_long",), retries=0)
    fast = ModelGroup("fast", (yard.deploy("b", supports=("chat",)),), retries=0)
    pool = yard.open(yard.catalog(quality, fast))
    too_long = {"error": {"message": "x", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    yard.servers["a"].behave = send_json(too_long, 400)
    assert (await pool.complete(ask(model="quality"))).deployment == "b"
    yard.servers["a"].behave = refuse(500)
    assert (await pool.complete(ask("again", model="quality"))).deployment == "b"
    yard.servers["b"].behave = send_json(too_long, 400)
    with pytest.raises(LLMContextTooLongError):
        await pool.complete(ask("once more", model="fast"))
    with pytest.raises(LLMUnsupportedError, match="quality"):
        await pool.complete(ask(model="fast", tools=(Tool("f", "a function", {"type": "object"}),)))
    with pytest.raises(LLMUnsupportedError):
        [chunk async for chunk in pool.stream(ask(model="fast"))]
    assert await yard.spent() == 2 * COST


async def test_what_a_fallback_said_in_an_outage_is_not_told_again(yard: Yard) -> None:
    await yard.serve("a", "b")
    groups = (
        ModelGroup("quality", (yard.deploy("a"),), fallbacks=("fast",), retries=0),
        ModelGroup("fast", (yard.deploy("b"),)),
    )
    pool = yard.open(yard.catalog(*groups))
    yard.servers["a"].behave = first(refuse(500), answer("from the best"))
    assert (await pool.complete(ask(model="quality"))).deployment == "b"
    assert (await pool.complete(ask(model="quality"))).content == "from the best"


async def test_requests_too_large_for_a_limit_go_on(yard: Yard) -> None:
    await yard.serve("a", "b")
    small = yard.deploy("a", limits=Limits(tokens_per_minute=ANSWER_TOKENS))
    pool = yard.open(yard.catalog(ModelGroup("fast", (small, yard.deploy("b")), strategy="priority")))
    assert (await pool.complete(ask())).deployment == "b"
    assert await yard.spent() == Decimal("0.01")
