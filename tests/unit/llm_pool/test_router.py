"""Whom the router asks: who can do it, has a permit, is quick, idle or cheap. The attempt ring is the test's own."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import get_args

import pytest

from llm_pool.call import AttemptCall, AttemptHandler, Call, Wait
from llm_pool.catalog import ModelGroup, Price
from llm_pool.routing.health import Health
from llm_pool.routing.router import Router
from llm_pool.types import Capability, ProviderAnswer
from shared.errors import (
    LLMAuthenticationError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMCoolingDownError,
    LLMError,
    LLMNoPermitError,
    LLMOverloadedError,
    LLMUnavailableError,
    LLMUnsupportedError,
)
from tests.builders import build_attempt, build_call
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import ask, build_catalog, deploy

A, B, C, D = deploy("a"), deploy("b"), deploy("c"), deploy("d")


def names(error: LLMError) -> list[str]:
    return [attempt.deployment for attempt in error.attempts]


def build_router(
    clock: MovingClock, ask: AttemptHandler, *groups: ModelGroup, lacks: Mapping[str, Capability] | None = None
) -> Router:
    """With an attempt ring of the test's own; `lacks` is what a deployment's provider cannot do."""
    catalog = build_catalog(*groups)
    everything = frozenset(get_args(Capability))
    capabilities = {d.name: everything - {(lacks or {}).get(d.name)} for d in catalog.deployments}
    return Router(catalog, ask, Health(clock), clock, capabilities=capabilities, draw=lambda: 0.0)


def build_need(clock: MovingClock, *needs: Capability, model: str = "fast") -> Call:
    return build_call(ask(model), entered_at=clock.monotonic(), needs=frozenset(needs or {"chat"}))


class Asked:
    """An attempt ring that raises what a deployment is told to, else answers, and remembers whom it was aimed at."""

    def __init__(self, errors: Mapping[str, LLMError] | None = None, clock: MovingClock | None = None) -> None:
        self.errors = errors or {}
        self.clock = clock
        self.calls: list[AttemptCall] = []
        self.waits: dict[str, float] = {}
        self.takes: dict[str, float] = {}

    async def __call__(self, attempt: AttemptCall) -> ProviderAnswer:
        self.calls.append(attempt)
        name = attempt.deployment.name
        if self.clock is not None:
            waited = self.waits.get(name, 0.0)
            self.clock.seconds += waited + self.takes.get(name, 0.0)
            attempt.call.waits.append(Wait(name, "scripted", waited))
        error = self.errors.get(name)
        if error is not None and not isinstance(error, LLMNoPermitError | LLMCoolingDownError):
            attempt.call.attempts.append(build_attempt(name, error_type=type(error).__name__))
        if error is not None:
            raise error
        attempt.call.attempts.append(build_attempt(name))
        return ProviderAnswer("fine", "m", "stop")

    @property
    def names(self) -> list[str]:
        return [attempt.deployment.name for attempt in self.calls]


async def test_who_cannot_do_what_is_needed_is_not_asked() -> None:
    clock, asked = MovingClock(), Asked()
    router = build_router(clock, asked, ModelGroup("fast", (A, B)), lacks={"a": "tools"})
    await router(build_need(clock, "chat", "tools"))
    await router(build_need(clock, "chat"))
    assert asked.names == ["b", "a"]


async def test_the_catalogue_may_say_that_a_model_can_do_less_than_its_provider() -> None:
    clock, asked = MovingClock(), Asked()
    router = build_router(clock, asked, ModelGroup("fast", (deploy("a", supports=("chat",)), B)))
    await router(build_need(clock, "chat", "json"))
    assert asked.names == ["b"]


async def test_when_nobody_in_reach_can_the_refusal_names_the_groups_that_can() -> None:
    clock, asked = MovingClock(), Asked()
    groups = (
        ModelGroup("fast", (A,), fallbacks=("other",)),
        ModelGroup("other", (B,)),
        ModelGroup("embedding", (C,)),
        ModelGroup("empty", ()),
    )
    router = build_router(clock, asked, *groups, lacks={"a": "embed", "b": "embed"})
    with pytest.raises(LLMUnsupportedError, match=r"group 'fast' reaches can do embed; ask one of these.*: embedding$"):
        await router(build_need(clock, "embed"))
    assert asked.calls == []


async def test_a_capability_that_nobody_has_is_refused_as_well() -> None:
    clock = MovingClock()
    router = build_router(clock, Asked(), ModelGroup("fast", (A,)), lacks={"a": "embed"})
    with pytest.raises(LLMUnsupportedError, match="no group has one that can"):
        await router(build_need(clock, "embed"))


async def test_no_one_waits_for_a_permit_while_another_of_the_group_may_have_one() -> None:
    clock, asked = MovingClock(), Asked({"a": LLMNoPermitError("full", retry_after_seconds=1)})
    await build_router(clock, asked, ModelGroup("fast", (A, B), strategy="priority"))(build_need(clock))
    assert [(call.deployment.name, call.is_last) for call in asked.calls] == [("a", False), ("b", False)]


async def test_before_a_group_is_given_up_the_one_with_the_soonest_permit_is_waited_for() -> None:
    clock = MovingClock()
    asked = Asked(
        {
            "a": LLMNoPermitError("full", retry_after_seconds=9),
            "b": LLMNoPermitError("full", retry_after_seconds=2),
            "c": LLMCoolingDownError("sick", retry_after_seconds=1),
        }
    )
    groups = ModelGroup("fast", (A, B, C), fallbacks=("other",), strategy="priority"), ModelGroup("other", (D,))
    await build_router(clock, asked, *groups)(build_need(clock))
    assert asked.names == ["a", "b", "c", "b", "d"]
    assert [call.is_last for call in asked.calls] == [False, False, False, True, True]
    assert [call.has_next for call in asked.calls] == [True, True, False, False, False]


async def test_who_is_alone_in_its_group_waits_at_once_and_only_once() -> None:
    clock, asked = MovingClock(), Asked({"a": LLMNoPermitError("full", retry_after_seconds=3)})
    with pytest.raises(LLMUnavailableError) as caught:
        await build_router(clock, asked, ModelGroup("fast", (A,)))(build_need(clock))
    assert [call.is_last for call in asked.calls] == [True]
    assert caught.value.retry_after_seconds == 3


async def test_when_nothing_was_sent_the_soonest_moment_to_come_back_is_told() -> None:
    clock = MovingClock()
    errors = {"a": LLMCoolingDownError("sick", retry_after_seconds=40), "b": LLMNoPermitError("full")}
    errors["b"].retry_after_seconds = 7
    with pytest.raises(LLMUnavailableError) as caught:
        await build_router(clock, Asked(errors), ModelGroup("fast", (A, B)))(build_need(clock))
    assert caught.value.retry_after_seconds == 7
    assert caught.value.attempts == ()


async def test_nobody_is_told_to_stay_away_while_one_may_be_back_at_any_moment() -> None:
    clock = MovingClock()
    errors = {"a": LLMCoolingDownError("sick", retry_after_seconds=300), "b": LLMOverloadedError("busy")}
    with pytest.raises(LLMUnavailableError) as caught:
        await build_router(clock, Asked(errors), ModelGroup("fast", (A, B)))(build_need(clock))
    assert caught.value.retry_after_seconds is None


@pytest.mark.parametrize("error", [LLMContextTooLongError("long"), LLMUnsupportedError("cannot")])
async def test_what_only_another_request_would_mend_is_not_called_an_outage(error: LLMError) -> None:
    clock = MovingClock()
    group = ModelGroup("fast", (A, B), fall_back_on=("too_long",))
    with pytest.raises(type(error)) as caught:
        await build_router(clock, Asked({"a": error, "b": error}), group)(build_need(clock))
    assert names(caught.value) == ["a", "b"]


async def test_a_group_may_have_long_prompts_and_blocked_content_asked_elsewhere() -> None:
    clock, asked = MovingClock(), Asked({"a": LLMContextTooLongError("long"), "b": LLMContentBlockedError("no")})
    group = ModelGroup("fast", (A, B, C), strategy="priority", fall_back_on=("too_long", "blocked"))
    await build_router(clock, asked, group)(build_need(clock))
    assert asked.names == ["a", "b", "c"]


async def test_waiting_for_a_permit_does_not_make_a_deployment_look_slow() -> None:
    clock = MovingClock()
    asked = Asked(clock=clock)
    asked.takes = {"a": 1.0, "b": 2.0}
    asked.waits = {"a": 20.0}
    router = build_router(clock, asked, ModelGroup("fast", (A, B)))
    for _ in range(4):
        await router(build_need(clock))
    assert asked.names == ["a", "b", "a", "a"]


async def test_what_was_never_sent_says_nothing_about_latency() -> None:
    clock = MovingClock()
    asked = Asked({"a": LLMCoolingDownError("sick", retry_after_seconds=9)}, clock)
    asked.takes = {"b": 2.0}
    router = build_router(clock, asked, ModelGroup("fast", (A, B)))
    await router(build_need(clock))
    asked.errors = {}
    await router(build_need(clock))
    assert asked.names == ["a", "b", "a"]


async def test_who_is_quick_only_at_refusing_is_asked_after_who_answers() -> None:
    clock = MovingClock()
    asked = Asked({"a": LLMAuthenticationError("no")}, clock)
    asked.takes = {"b": 2.0}
    router = build_router(clock, asked, ModelGroup("fast", (A, B)))
    await router(build_need(clock))
    await router(build_need(clock))
    assert asked.names == ["a", "b", "b"]


async def test_least_busy_counts_what_is_in_flight_and_forgets_what_ended() -> None:
    clock = MovingClock()
    gate = asyncio.Event()
    asked: list[str] = []

    async def hold(attempt: AttemptCall) -> ProviderAnswer:
        asked.append(attempt.deployment.name)
        await gate.wait()
        return ProviderAnswer("fine", "m", "stop")

    router = build_router(clock, hold, ModelGroup("fast", (A, B), strategy="least_busy"))
    running = []
    for _ in range(3):
        running.append(asyncio.create_task(router(build_need(clock))))
        await asyncio.sleep(0)
    assert asked == ["a", "b", "a"]
    gate.set()
    await asyncio.gather(*running)
    await router(build_need(clock))
    assert asked[3:] == ["a"]


async def test_each_group_counts_its_own_turns() -> None:
    clock, asked = MovingClock(), Asked()
    groups = ModelGroup("fast", (A, B), strategy="round_robin"), ModelGroup("other", (A, B), strategy="round_robin")
    router = build_router(clock, asked, *groups)
    for model in ("fast", "other", "fast", "other"):
        await router(build_need(clock, model=model))
    assert asked.names == ["a", "a", "b", "b"]


async def test_cheapest_asks_for_prices() -> None:
    clock, asked = MovingClock(), Asked()
    prices = {"a": Price(Decimal(2), Decimal(2)), "b": Price(Decimal(1), Decimal(1))}
    catalog = build_catalog(ModelGroup("fast", (A, B), strategy="cheapest"))
    router = Router(
        catalog,
        asked,
        Health(clock),
        clock,
        capabilities={"a": frozenset({"chat"}), "b": frozenset({"chat"})},
        find_price=lambda deployment: prices[deployment.name],
    )
    await router(build_need(clock))
    assert asked.names == ["b"]
