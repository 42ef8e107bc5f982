"""Who is asked, in which order, and what becomes of a request that nobody answers."""

import asyncio

import pytest

from llm_pool.catalog import ModelGroup
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.pool import Pool
from shared.errors import (
    LLMAuthenticationError,
    LLMContentBlockedError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import Script, ask, build_catalog, build_registry, deploy

A, B, C, D = deploy("a"), deploy("b"), deploy("c"), deploy("d")


def build_pool(clock: MovingClock, scripts: dict[str, Script], *groups: ModelGroup) -> Pool:
    retry = Retry(clock, Backoff(draw=lambda _, high: high), clock.sleep)
    return Pool(build_catalog(*groups), clock=clock, retry=retry, registry=build_registry(scripts, clock))


def names(response_or_error) -> list[str]:
    return [attempt.deployment for attempt in response_or_error.attempts]


async def test_the_quicker_is_asked_first_once_both_are_known() -> None:
    scripts = {"a": Script(takes_seconds=3), "b": Script(takes_seconds=1)}
    pool = build_pool(MovingClock(), scripts, ModelGroup("fast", (A, B)))
    answered = [(await pool.complete(ask())).deployment for _ in range(3)]
    assert answered == ["a", "b", "b"]


async def test_by_weight_everybody_has_a_turn() -> None:
    """One in a billion that 30 equal draws all fall on one."""
    pool = build_pool(MovingClock(), {"a": Script(), "b": Script()}, ModelGroup("fast", (A, B), strategy="weighted"))
    assert {(await pool.complete(ask())).deployment for _ in range(30)} == {"a", "b"}


async def test_a_deployment_that_fails_counts_with_the_time_it_cost() -> None:
    scripts = {"a": Script([LLMOverloadedError("down")]), "b": Script(takes_seconds=0.5)}
    pool = build_pool(MovingClock(), scripts, ModelGroup("fast", (A, B)))
    assert names(await pool.complete(ask())) == ["a", "a", "a", "b"]
    assert names(await pool.complete(ask())) == ["b"]


async def test_a_call_that_was_cancelled_says_nothing_about_the_deployment() -> None:
    clock = MovingClock()
    scripts = {"a": Script(hangs=True), "b": Script(takes_seconds=1)}
    pool = build_pool(clock, scripts, ModelGroup("fast", (B, A)))
    await pool.complete(ask())
    task = asyncio.create_task(pool.complete(ask()))
    await scripts["a"].started.wait()
    clock.seconds += 5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    scripts["a"].hangs = False
    assert (await pool.complete(ask())).deployment == "a"


async def test_a_fallback_follows_the_last_failed_try_at_once() -> None:
    clock = MovingClock()
    scripts = {"a": Script([LLMOverloadedError("down")]), "b": Script()}
    groups = ModelGroup("quality", (A,), fallbacks=("fast",)), ModelGroup("fast", (B,))
    response = await build_pool(clock, scripts, *groups).complete(ask("quality"))
    assert names(response) == ["a", "a", "a", "b"]
    assert clock.slept == [1.0, 2.0]
    assert response.latency_seconds == pytest.approx(3.0)


async def test_no_deployment_is_asked_again_by_a_fallback() -> None:
    scripts = {name: Script([LLMAuthenticationError("no")]) for name in "abc"}
    groups = (
        ModelGroup("top", (A, B), fallbacks=("left", "right")),
        ModelGroup("left", (B,), fallbacks=("right",)),
        ModelGroup("right", (A, C)),
    )
    with pytest.raises(LLMUnavailableError) as caught:
        await build_pool(MovingClock(), scripts, *groups).complete(ask("top"))
    assert names(caught.value) == ["a", "b", "c"]


async def test_all_failed_tells_every_attempt_and_the_soonest_moment_to_come_back() -> None:
    scripts = {
        "a": Script([LLMRateLimitedError("later", retry_after_seconds=90)]),
        "b": Script([LLMRateLimitedError("soon", retry_after_seconds=70)]),
    }
    with pytest.raises(LLMUnavailableError) as caught:
        await build_pool(MovingClock(), scripts, ModelGroup("fast", (A, B))).complete(ask())
    assert caught.value.retry_after_seconds == 70
    assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMRateLimitedError"] * 2
    assert caught.value.parks


async def test_a_group_whose_deployments_are_all_left_out_is_answered_by_its_fallback() -> None:
    groups = ModelGroup("quality", (), fallbacks=("fast",)), ModelGroup("fast", (A,))
    response = await build_pool(MovingClock(), {"a": Script()}, *groups).complete(ask("quality"))
    assert response.deployment == "a"


async def test_a_group_with_nobody_at_all_is_unavailable() -> None:
    with pytest.raises(LLMUnavailableError) as caught:
        await build_pool(MovingClock(), {}, ModelGroup("fast", ())).complete(ask())
    assert caught.value.attempts == ()


@pytest.mark.parametrize("error", [LLMInvalidRequestError("bad"), LLMContentBlockedError("no")])
async def test_what_no_other_deployment_would_mend_is_raised_at_once(error) -> None:
    scripts = {"a": Script([error]), "b": Script()}
    with pytest.raises(type(error)) as caught:
        await build_pool(MovingClock(), scripts, ModelGroup("fast", (A, B))).complete(ask())
    assert names(caught.value) == ["a"]
    assert scripts["b"].asked == []


async def test_no_deployment_is_asked_after_the_deadline() -> None:
    scripts = {"a": Script([LLMTimeoutError("slow")], takes_seconds=10), "b": Script()}
    with pytest.raises(LLMTimeoutError, match="within 10 s") as caught:
        await build_pool(MovingClock(), scripts, ModelGroup("fast", (A, B))).complete(ask(timeout_seconds=10))
    assert names(caught.value) == ["a"]
    assert scripts["b"].asked == []


async def test_an_attempt_gets_the_deployments_time_but_no_more_than_is_left() -> None:
    scripts = {"a": Script([LLMAuthenticationError("no")], takes_seconds=4), "b": Script()}
    group = ModelGroup("fast", (deploy("a", timeout_seconds=5.0), B), timeout_seconds=30)
    await build_pool(MovingClock(), scripts, group).complete(ask())
    assert (scripts["a"].timeouts, scripts["b"].timeouts) == ([5.0], [26.0])
