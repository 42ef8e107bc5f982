"""What each failure says about a deployment, and how the cooldown goes together with the retries around it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from llm_pool.call import AttemptCall, AttemptHandler, compose
from llm_pool.catalog import ModelGroup
from llm_pool.middleware.cooldown import Cooldown
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import LONGEST_NAMED_SECONDS, build_key
from llm_pool.stores.cooldowns.memory import MemoryCooldowns
from llm_pool.types import ProviderAnswer
from shared.errors import (
    LLMAuthenticationError,
    LLMBrokenAnswerError,
    LLMConnectionError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMCoolingDownError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMNoPermitError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
    LLMStreamBrokenError,
    LLMTimeoutError,
    LLMUnsupportedError,
)
from tests.builders import build_call
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import deploy

POLICY = CooldownPolicy(failures=3, first_seconds=5.0, longest_seconds=300.0, ramp_seconds=10.0)
DEPLOYMENT = deploy("a", timeout_seconds=20.0)
KEY = build_key(DEPLOYMENT)
FINE = ProviderAnswer("fine", "m", "stop")


class Yard:
    """One deployment behind the middleware, and a provider that raises what it is told, in turn."""

    def __init__(self) -> None:
        self.clock = MovingClock()
        self.store = MemoryCooldowns(POLICY, self.clock)
        self.cooldown = Cooldown(self.store, POLICY, self.clock)
        self.steps: list[LLMError | None] = []
        self.asked_at: list[float] = []
        self.takes_seconds = 0.0

    async def answer(self, call: AttemptCall) -> ProviderAnswer:
        self.asked_at.append(self.clock.seconds)
        self.clock.seconds += self.takes_seconds
        step = self.steps.pop(0) if self.steps else None
        if step is not None:
            raise step
        return FINE

    def build_attempt(self, timeout_seconds: float = 60.0, retries: int = 2, **group: Any) -> AttemptCall:
        now = self.clock.monotonic()
        call = build_call(entered_at=now, deadline=now + timeout_seconds)
        return AttemptCall(call, DEPLOYMENT, ModelGroup("fast", (DEPLOYMENT,), retries=retries, **group))

    async def ask(self, *steps: LLMError | None, ring: AttemptHandler | None = None, **attempt: float) -> str:
        """The name of what was raised, or the answer."""
        self.steps.extend(steps)
        ask = ring or compose((self.cooldown,), self.answer)
        try:
            return (await ask(self.build_attempt(**attempt))).content
        except LLMError as error:
            return type(error).__name__

    def build_retry_ring(self) -> AttemptHandler:
        retry = Retry(self.clock, Backoff(draw=lambda _, high: high), self.clock.sleep)
        return compose((retry, self.cooldown), self.answer)

    async def read(self) -> tuple[str, float]:
        state = await self.store.read(KEY)
        return state.phase, state.left_seconds


@pytest.fixture
def yard() -> Yard:
    return Yard()


async def ask_each(yard: Yard, errors: Sequence[LLMError]) -> list[str]:
    return [await yard.ask(error) for error in errors]


@pytest.mark.parametrize("error", [LLMOverloadedError, LLMTimeoutError, LLMConnectionError, LLMBrokenAnswerError])
async def test_three_failures_in_a_row_suffice_and_then_nobody_is_asked(yard: Yard, error: type[LLMError]) -> None:
    await ask_each(yard, [error("down")] * 3)
    assert await yard.read() == ("cooling", 5.0)
    assert await yard.ask() == "LLMCoolingDownError"
    assert len(yard.asked_at) == 3


async def test_an_answer_in_between_starts_the_count_again(yard: Yard) -> None:
    for _ in range(5):
        await ask_each(yard, [LLMOverloadedError("down")] * 2)
        assert await yard.ask() == "fine"


@pytest.mark.parametrize("error", [LLMRateLimitedError, LLMOverloadedError])
async def test_one_suffices_where_the_provider_says_how_long(yard: Yard, error: type[LLMError]) -> None:
    await yard.ask(error("later", retry_after_seconds=42.0))
    assert await yard.read() == ("cooling", 42.0)


async def test_a_provider_that_names_a_week_is_asked_after_a_day(yard: Yard) -> None:
    await yard.ask(LLMRateLimitedError("later", retry_after_seconds=604_800.0))
    assert await yard.read() == ("cooling", LONGEST_NAMED_SECONDS)


@pytest.mark.parametrize("error", [LLMAuthenticationError, LLMQuotaExhaustedError, LLMModelNotFoundError])
async def test_what_an_operator_must_mend_is_left_alone_at_once_and_for_long(yard: Yard, error: type[LLMError]) -> None:
    assert await yard.ask(error("no")) == error.__name__
    assert await yard.read() == ("cooling", 300.0)


@pytest.mark.parametrize(
    "error",
    [
        LLMInvalidRequestError("bad"),
        LLMContextTooLongError("long"),
        LLMContentBlockedError("no"),
        LLMUnsupportedError("cannot"),
        LLMNoPermitError("full", retry_after_seconds=9.0),
    ],
)
async def test_what_says_nothing_about_the_deployment_does_not_count(yard: Yard, error: LLMError) -> None:
    assert await ask_each(yard, [error] * 5) == [type(error).__name__] * 5
    assert (await yard.store.read(KEY)).failures == 0


async def test_a_caller_without_time_does_not_speak_against_the_deployment(yard: Yard) -> None:
    yard.takes_seconds = 2.0
    for _ in range(5):
        assert await yard.ask(LLMTimeoutError("slow"), timeout_seconds=2.0) == "LLMTimeoutError"
    assert (await yard.store.read(KEY)).failures == 0


@pytest.mark.parametrize(
    ("cause", "left"),
    [
        (LLMRateLimitedError("later", retry_after_seconds=42.0), ("cooling", 42.0)),
        (LLMAuthenticationError("the key was withdrawn"), ("cooling", 300.0)),
        (LLMContentBlockedError("no"), ("open", 0.0)),
    ],
)
async def test_a_stream_that_breaks_is_judged_by_what_broke_it(
    yard: Yard, cause: LLMError, left: tuple[str, float]
) -> None:
    assert await yard.ask(LLMStreamBrokenError(cause, "some text")) == "LLMStreamBrokenError"
    assert await yard.read() == left


async def test_a_cancelled_call_does_not_count_and_gives_its_place_back(yard: Yard) -> None:
    await yard.store.cool(KEY, 5.0)
    yard.clock.seconds += 5.0

    async def hang(_: AttemptCall) -> ProviderAnswer:
        await asyncio.Event().wait()
        return FINE

    probing = asyncio.create_task(yard.ask(ring=compose((yard.cooldown,), hang)))
    await asyncio.sleep(0)
    assert await yard.ask() == "LLMCoolingDownError"
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    assert await yard.ask() == "fine"


async def test_a_probe_that_met_only_its_callers_mistake_leaves_its_place_to_the_next(yard: Yard) -> None:
    await yard.store.cool(KEY, 5.0)
    yard.clock.seconds += 5.0
    assert await yard.ask(LLMInvalidRequestError("bad")) == "LLMInvalidRequestError"
    assert await yard.read() == ("half_open", 0.0)
    assert await yard.ask() == "fine"
    assert (await yard.read())[0] == "ramping"


@pytest.mark.parametrize(("fallbacks", "longest_seconds"), [(("other",), 50.0), ((), 600.0)])
async def test_a_probe_whose_worker_died_blocks_for_no_longer_than_it_could_have_taken(
    yard: Yard, fallbacks: tuple[str, ...], longest_seconds: float
) -> None:
    """Without fallbacks a permit is waited for until the deadline, and the probe is none before it has one."""
    await yard.store.cool(KEY, 5.0)
    yard.clock.seconds += 5.0
    await yard.cooldown._admit(yard.build_attempt(timeout_seconds=600.0, fallbacks=fallbacks))
    yard.clock.seconds += longest_seconds + 4.9
    assert await yard.ask() == "LLMCoolingDownError"
    yard.clock.seconds += 0.2
    assert await yard.ask() == "fine"


async def test_who_slept_exactly_as_long_as_the_provider_asked_for_is_the_probe(yard: Yard) -> None:
    limited = LLMRateLimitedError("later", retry_after_seconds=7.3)
    begun = yard.clock.seconds
    assert await yard.ask(limited, ring=yard.build_retry_ring()) == "fine"
    assert yard.asked_at == [begun, begun + 7.3]
    assert (await yard.read())[0] == "ramping"


async def test_of_twenty_that_waited_one_is_the_probe_and_the_others_are_sent_on(yard: Yard) -> None:
    asked: list[float] = []

    async def refuse_once(_: AttemptCall) -> ProviderAnswer:
        asked.append(yard.clock.seconds)
        await asyncio.sleep(0)
        if len(asked) <= 20:
            raise LLMRateLimitedError("later", retry_after_seconds=0.05)
        await asyncio.sleep(0.05)
        return FINE

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0.01)
        yard.clock.seconds = max(yard.clock.seconds, begun + seconds)

    begun = yard.clock.seconds
    ring = compose((Retry(yard.clock, Backoff(), sleep), yard.cooldown), refuse_once)
    ended = await asyncio.gather(*(yard.ask(ring=ring) for _ in range(20)))
    assert sorted(ended) == ["LLMCoolingDownError"] * 19 + ["fine"]
    assert len(asked) == 21


async def test_nobody_waits_for_a_retry_that_would_be_refused(yard: Yard) -> None:
    ring = yard.build_retry_ring()
    assert await yard.ask(*[LLMOverloadedError("down")] * 9, ring=ring, retries=8) == "LLMCoolingDownError"
    assert yard.clock.slept == [1.0, 2.0]
    assert len(yard.asked_at) == 3


async def test_a_named_wait_that_ends_before_the_cooling_is_not_waited_for(yard: Yard) -> None:
    await yard.ask(LLMRateLimitedError("later", retry_after_seconds=7.0))
    yard.clock.seconds += 7.0

    async def cool_meanwhile(_: AttemptCall) -> ProviderAnswer:
        await yard.store.cool(KEY, 50.0)
        raise LLMRateLimitedError("later", retry_after_seconds=2.0)

    with pytest.raises(LLMCoolingDownError) as caught:
        await yard.cooldown(yard.build_attempt(), cool_meanwhile)
    assert caught.value.retry_after_seconds == pytest.approx(50.0)
    assert isinstance(caught.value.__cause__, LLMRateLimitedError)


async def test_cooling_and_recovery_are_told_once(yard: Yard) -> None:
    with capture_logs() as logs:
        await ask_each(yard, [LLMOverloadedError("down")] * 3)
        yard.clock.seconds += 5.0
        await yard.ask()
        await yard.ask()
    assert [log["event"] for log in logs] == ["deployment_cooled", "deployment_recovered"]
    assert logs[0] | {"deployment": "a", "seconds": 5.0, "error_type": "LLMOverloadedError"} == logs[0]
