"""What is answered from the cache, what is kept for it, and what becomes of those who ask the same at once."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from llm_pool.call import RunConfig
from llm_pool.middleware.cache import Cache, CacheStats, decide_use
from llm_pool.policies import CachePolicy
from llm_pool.types import CompletionRequest, CompletionResponse, EmbeddingRequest
from shared.attempts import Usage
from shared.clock import SystemClock
from shared.errors import (
    LLMBudgetExceededError,
    LLMContentBlockedError,
    LLMError,
    LLMNoPermitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from tests.builders import build_attempt, build_response
from tests.fakes.caching import Model, build_cache, build_call, build_model
from tests.fakes.moving_clock import MovingClock


async def ask_twice(model: Model, cache: Cache, clock: MovingClock, **fields: Any) -> tuple[Any, Any]:
    return (await cache(build_call(clock, **fields), model), await cache(build_call(clock, **fields), model))


async def settle() -> None:
    """Lets everybody come to where they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_second_equal_request_is_answered_without_asking() -> None:
    clock, model = MovingClock(), build_model()
    first, second = await ask_twice(model, build_cache(clock), clock)
    assert (first.cached, second.cached, len(model.calls)) == (False, True, 1)
    assert second.content == first.content == "answer 1"


async def test_a_hit_costs_nothing_and_tried_nobody() -> None:
    clock = MovingClock()
    model = build_model(lambda _: replace(build_response(), cost_usd=Decimal("0.5")))
    cache, call = build_cache(clock), build_call(clock)
    await cache(build_call(clock), model)
    clock.seconds += 0.125
    hit = await cache(call, model)
    assert isinstance(hit, CompletionResponse)
    assert (hit.cost_usd, hit.attempts, hit.usage, hit.latency_seconds) == (Decimal(0), (), Usage(3, 2), 0.125)


async def test_the_call_and_the_stats_say_what_the_cache_did() -> None:
    clock, model = MovingClock(), build_model()
    cache, calls = build_cache(clock), [build_call(clock) for _ in range(4)]
    assert cache.stats().hit_rate == 0.0
    for call in calls:
        await cache(call, model)
    hot = build_call(clock, temperature=1.0)
    await cache(hot, model)
    assert [call.cache for call in (*calls, hot)] == ["miss", "hit", "hit", "hit", None]
    assert cache.stats() == CacheStats(hits=3, misses=1)
    assert cache.stats().hit_rate == 0.75


@pytest.mark.parametrize(
    ("temperature", "use_cache", "calls"),
    [
        (0.0, None, 1),
        (0.3, None, 1),
        (0.31, None, 2),
        (None, None, 2),
        (1.0, True, 1),
        (None, True, 1),
        (0.0, False, 2),
    ],
)
async def test_hot_requests_are_asked_anew_unless_the_caller_wants_otherwise(
    temperature: float | None, use_cache: bool | None, calls: int
) -> None:
    clock, model = MovingClock(), build_model()
    run = RunConfig(use_cache=use_cache)
    await ask_twice(model, build_cache(clock), clock, temperature=temperature, run=run)
    assert len(model.calls) == calls


@pytest.mark.parametrize("use_cache", [None, True])
async def test_streams_are_neither_kept_nor_answered_from_the_cache(use_cache: bool | None) -> None:
    clock, model = MovingClock(), build_model()
    cache, run = build_cache(clock), RunConfig(use_cache=use_cache)
    await ask_twice(model, cache, clock, is_streamed=True, run=run)
    await cache(build_call(clock), model)
    await cache(build_call(clock, is_streamed=True, run=run), model)
    assert len(model.calls) == 4


async def test_embeddings_are_not_the_caches_affair() -> None:
    clock, model = MovingClock(), build_model()
    call = replace(build_call(clock, run=RunConfig(use_cache=True)), request=EmbeddingRequest("fast", ("text",)))
    cache = build_cache(clock)
    await cache(call, model)
    assert (call.cache, cache.stats().misses) == (None, 0)


async def test_an_answer_is_too_old_after_its_time() -> None:
    clock, model = MovingClock(), build_model()
    cache = build_cache(clock, ttl_seconds=60.0)
    await cache(build_call(clock), model)
    clock.seconds += 59
    await cache(build_call(clock), model)
    clock.seconds += 2
    await cache(build_call(clock), model)
    assert len(model.calls) == 2


async def test_tenants_do_not_share_answers() -> None:
    clock, model = MovingClock(), build_model()
    cache = build_cache(clock)
    await cache(build_call(clock, tenant_id="acme"), model)
    await cache(build_call(clock, tenant_id="other"), model)
    assert len(model.calls) == 2


@pytest.mark.parametrize(
    ("finish_reason", "max_tokens", "is_kept"),
    [
        ("stop", None, True),
        ("tool_calls", None, True),
        ("length", 10, True),
        ("length", None, False),
        ("content_filter", None, False),
    ],
)
async def test_answers_cut_short_by_others_are_not_kept(
    finish_reason: Any, max_tokens: int | None, is_kept: bool
) -> None:
    clock = MovingClock()
    model = build_model(lambda _: replace(build_response(), finish_reason=finish_reason))
    _, second = await ask_twice(model, build_cache(clock), clock, max_tokens=max_tokens)
    assert second.cached is is_kept


async def test_what_a_fallback_answered_is_not_told_after_the_outage() -> None:
    clock = MovingClock()
    model = build_model(lambda number: replace(build_response(), deployment="b" if number == 1 else "a"))
    _, second = await ask_twice(model, build_cache(clock), clock)
    assert (second.deployment, second.cached) == ("a", False)


async def test_failures_are_not_kept() -> None:
    def answer(number: int) -> CompletionResponse:
        if number == 1:
            raise LLMUnavailableError
        return build_response()

    clock, model = MovingClock(), build_model(answer)
    cache = build_cache(clock)
    with pytest.raises(LLMUnavailableError):
        await cache(build_call(clock), model)
    assert not (await cache(build_call(clock), model)).cached


async def test_fifty_equal_requests_at_once_are_one_call() -> None:
    clock, model = MovingClock(), Model()
    cache = build_cache(clock)
    asking = [asyncio.create_task(cache(build_call(clock), model)) for _ in range(50)]
    await settle()
    model.may_answer.set()
    responses = await asyncio.gather(*asking)
    assert len(model.calls) == 1
    assert [response.cached for response in responses] == [False] + [True] * 49
    assert {response.content for response in responses} == {"answer 1"}
    assert sum(len(response.attempts) for response in responses) == 1


async def test_those_who_wait_are_told_what_is_not_kept() -> None:
    clock = MovingClock()
    model = Model(lambda _: replace(build_response(), deployment="b"))
    cache = build_cache(clock)
    asking = [asyncio.create_task(cache(build_call(clock), model)) for _ in range(5)]
    await settle()
    model.may_answer.set()
    await asyncio.gather(*asking)
    assert len(model.calls) == 1


async def test_a_cancelled_asker_takes_nobody_along() -> None:
    clock, model = MovingClock(), Model()
    cache = build_cache(clock)
    first, *others = [asyncio.create_task(cache(build_call(clock), model)) for _ in range(5)]
    await settle()
    first.cancel()
    await settle()
    assert model.was_cancelled == 1
    model.may_answer.set()
    responses = await asyncio.gather(*others)
    assert first.cancelled()
    assert len(model.calls) == 2
    assert {response.content for response in responses} == {"answer 2"}


async def test_who_stops_waiting_leaves_the_asker_alone() -> None:
    clock, model = MovingClock(), Model()
    cache = build_cache(clock)
    first, second = [asyncio.create_task(cache(build_call(clock), model)) for _ in range(2)]
    await settle()
    second.cancel()
    model.may_answer.set()
    assert (await first).content == "answer 1"


async def test_a_failure_is_told_to_all_who_waited_and_its_attempts_to_one() -> None:
    def answer(_: int) -> CompletionResponse:
        raise LLMUnavailableError(retry_after_seconds=7, attempts=[build_attempt(error_type="LLMOverloadedError")])

    clock, model = MovingClock(), Model(answer)
    cache = build_cache(clock)
    asking = [asyncio.create_task(cache(build_call(clock), model)) for _ in range(10)]
    await settle()
    model.may_answer.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert len(model.calls) == 1
    assert [type(error) for error in errors] == [LLMUnavailableError] * 10
    assert len({id(error) for error in errors}) == 10
    assert [(len(error.attempts), error.retry_after_seconds) for error in errors] == [(1, 7)] + [(0, 7)] * 9
    assert cache.stats() == CacheStats(hits=0, misses=10)


@pytest.mark.parametrize(
    "failure",
    [
        LLMBudgetExceededError("call", Decimal(1), None),
        LLMNoPermitError("what is left of batch:1 is held by other calls"),
        LLMTimeoutError("no answer within 60 s"),
    ],
)
async def test_who_waited_does_not_fail_for_the_askers_money_or_time(failure: LLMError) -> None:
    def answer(number: int) -> CompletionResponse:
        if number == 1:
            raise failure
        return build_response(f"answer {number}")

    clock, model = MovingClock(), Model(answer)
    cache = build_cache(clock)
    asking = [asyncio.create_task(cache(build_call(clock), model)) for _ in range(5)]
    await settle()
    model.may_answer.set()
    first, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert first is failure
    assert {response.content for response in others} == {"answer 2"}
    assert len(model.calls) == 2


async def test_who_allows_more_time_than_the_asker_tries_again() -> None:
    def answer(number: int) -> CompletionResponse:
        if number == 1:
            raise LLMUnavailableError
        return build_response()

    clock, model = MovingClock(), Model(answer)
    cache = build_cache(clock)
    hasty = asyncio.create_task(cache(build_call(clock, timeout_seconds=1), model))
    await settle()
    patient = asyncio.create_task(cache(build_call(clock, timeout_seconds=60), model))
    await settle()
    model.may_answer.set()
    assert isinstance((await asyncio.gather(hasty, return_exceptions=True))[0], LLMUnavailableError)
    assert (await patient).content == "fine"


async def test_waiting_for_anothers_answer_ends_at_the_deadline() -> None:
    clock, model = SystemClock(), Model()
    cache = build_cache(clock)
    asker = asyncio.create_task(cache(build_call(clock), model))
    await settle()
    started = clock.monotonic()
    with pytest.raises(LLMTimeoutError, match=r"within 0\.05 s"):
        await cache(build_call(clock, timeout_seconds=0.05), model)
    assert clock.monotonic() - started < 0.5
    model.may_answer.set()
    await asker


async def test_failures_keep_what_their_class_adds() -> None:
    def answer(_: int) -> CompletionResponse:
        raise LLMContentBlockedError("refused") from ValueError("why")

    clock, model = MovingClock(), Model(answer)
    cache = build_cache(clock)
    asking = [asyncio.create_task(cache(build_call(clock), model)) for _ in range(2)]
    await settle()
    model.may_answer.set()
    _, error = await asyncio.gather(*asking, return_exceptions=True)
    assert (str(error), repr(error.__cause__)) == ("refused", "ValueError('why')")


def test_where_nothing_is_kept_the_caller_cannot_ask_for_it() -> None:
    call = build_call(SystemClock(), run=RunConfig(use_cache=True))
    assert isinstance(call.request, CompletionRequest)
    assert not decide_use(call, call.request, CachePolicy(store="none"))
