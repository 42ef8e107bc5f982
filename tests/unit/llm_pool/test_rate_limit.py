"""The permit that each try takes: who waits for one, who is sent on, and what becomes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from llm_pool.call import AttemptCall, Call, TokenEstimate, compose
from llm_pool.catalog import Deployment, Limits, ModelGroup
from llm_pool.middleware.rate_limit import RateLimit
from llm_pool.stores.permits.memory import MemoryPermits
from llm_pool.types import Answer, ProviderAnswer
from shared.attempts import QuotaReading, Usage
from shared.errors import (
    LLMConnectionError,
    LLMNoPermitError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMUnsupportedError,
)
from tests.builders import build_call
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import deploy

FINE = ProviderAnswer("fine", "scripted-1", "stop", Usage(8, 4))


@dataclass
class Ring:
    """A ring with nothing in it but the rate limit, around a provider that does what it is told."""

    deployment: Deployment
    clock: MovingClock = field(default_factory=MovingClock)
    answer: Answer | BaseException = FINE
    sleep: Callable[[float], Awaitable[None]] | None = None
    """Moves the clock unless another is given."""
    entered: list[Call] = field(default_factory=list)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.leave.set()
        self.store = MemoryPermits(self.clock)
        self._handle = compose((RateLimit(self.store, self.clock, self.sleep or self.clock.sleep),), self._ask)

    def build_call(self, tokens: int = 100, deadline_seconds: float = 300.0) -> Call:
        now = self.clock.monotonic()
        return build_call(entered_at=now, deadline=now + deadline_seconds, estimate=TokenEstimate(10, tokens - 10))

    async def ask(self, call: Call | None = None, *, is_last: bool = True, **group: object) -> Answer:
        model_group = ModelGroup("fast", (self.deployment,), **group)
        return await self._handle(AttemptCall(call or self.build_call(), self.deployment, model_group, is_last))

    async def count_used(self) -> dict[str, int]:
        readings = await self.store.read(self.deployment.name, self.deployment.limits)
        return {reading.cell: reading.used for reading in readings}

    async def _ask(self, attempt: AttemptCall) -> Answer:
        self.entered.append(attempt.call)
        await self.leave.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def limit(**limits: int) -> Ring:
    return Ring(deploy("a", limits=Limits(**limits)))


def limit_without_time(**limits: int) -> Ring:
    """Whoever sleeps here sleeps until somebody else leaves something."""
    return Ring(deploy("a", limits=Limits(**limits)), sleep=never)


async def never(_: float) -> None:
    await asyncio.Event().wait()


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_try_is_counted_with_what_its_answer_used() -> None:
    ring = limit(requests_per_minute=5, tokens_per_minute=1000, in_flight=2)
    await ring.ask()
    assert await ring.count_used() == {"requests_per_minute": 1, "tokens_per_minute": 12, "in_flight": 0}


async def test_while_it_is_asked_a_try_is_counted_with_all_it_may_use() -> None:
    ring = limit(tokens_per_minute=1000, in_flight=2)
    ring.leave.clear()
    asking = asyncio.create_task(ring.ask())
    await let_others_run()
    assert await ring.count_used() == {"tokens_per_minute": 100, "in_flight": 1}
    ring.leave.set()
    await asking


def build_unreachable() -> LLMConnectionError:
    error = LLMConnectionError("nobody listens")
    error.was_sent = False
    return error


@pytest.mark.parametrize(
    ("failure", "requests"),
    [(LLMOverloadedError("down"), 1), (build_unreachable(), 0), (LLMConnectionError("hung up"), 1), (ValueError(), 1)],
)
async def test_a_failed_try_gives_back_its_tokens(failure: Exception, requests: int) -> None:
    ring = limit(requests_per_minute=5, tokens_per_minute=1000, in_flight=2)
    ring.answer = failure
    with pytest.raises(type(failure)):
        await ring.ask()
    assert await ring.count_used() == {"requests_per_minute": requests, "tokens_per_minute": 0, "in_flight": 0}


async def test_a_cancelled_try_gives_back_its_tokens() -> None:
    ring = limit(requests_per_minute=5, tokens_per_minute=1000, in_flight=2)
    ring.leave.clear()
    asking = asyncio.create_task(ring.ask())
    await let_others_run()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await ring.count_used() == {"requests_per_minute": 1, "tokens_per_minute": 0, "in_flight": 0}


async def test_where_another_may_be_asked_nobody_waits() -> None:
    ring = limit(requests_per_minute=1)
    await ring.ask()
    call = ring.build_call()
    with pytest.raises(LLMNoPermitError, match="requests per minute") as refused:
        await ring.ask(call, is_last=False)
    assert refused.value.retry_after_seconds == pytest.approx(61.5, abs=0.5)
    assert (ring.clock.slept, call.waits, len(ring.entered)) == ([], [], 1)


async def test_no_permit_is_not_retried_in_place() -> None:
    assert not LLMNoPermitError.is_retryable
    assert LLMNoPermitError.falls_back
    assert LLMNoPermitError.parks


async def test_the_last_one_waits_until_there_is_room_and_says_how_long() -> None:
    ring = limit(requests_per_minute=1)
    await ring.ask()
    call = ring.build_call()
    assert await ring.ask(call) is FINE
    (wait,) = call.waits
    assert (wait.deployment, wait.provider) == ("a", "scripted")
    assert wait.seconds == pytest.approx(61.5, abs=0.5)
    assert sum(ring.clock.slept) == pytest.approx(wait.seconds)


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    ring = limit(requests_per_minute=1)
    await ring.ask()
    call = ring.build_call(deadline_seconds=61.0)
    with pytest.raises(LLMNoPermitError):
        await ring.ask(call)
    assert (ring.clock.slept, call.waits) == ([], [])


async def test_with_fallbacks_nobody_waits_longer_than_the_group_says() -> None:
    ring = limit(requests_per_minute=1)
    await ring.ask()
    with pytest.raises(LLMNoPermitError):
        await ring.ask(fallbacks=("other",), longest_wait_seconds=30.0)
    assert ring.clock.slept == []
    await ring.ask(fallbacks=("other",), longest_wait_seconds=70.0)


async def test_a_place_that_is_left_is_taken_at_once() -> None:
    ring = limit_without_time(in_flight=1)
    ring.leave.clear()
    asking = [asyncio.create_task(ring.ask()) for _ in range(4)]
    await let_others_run()
    assert len(ring.entered) == 1
    ring.leave.set()
    await asyncio.gather(*asking)


async def test_those_who_wait_are_served_in_the_order_they_came() -> None:
    ring = limit_without_time(tokens_per_minute=1000)
    ring.leave.clear()
    first = asyncio.create_task(ring.ask(ring.build_call(tokens=900)))
    await let_others_run()
    large, small = ring.build_call(tokens=800), ring.build_call(tokens=150)
    waiting = [asyncio.create_task(ring.ask(call)) for call in (large, small)]
    await let_others_run()
    assert len(ring.entered) == 1
    ring.leave.set()
    await asyncio.gather(first, *waiting)
    assert ring.entered[1:] == [large, small]


async def test_a_large_request_is_not_starved_by_a_stream_of_small_ones() -> None:
    ring = limit(tokens_per_minute=1000)
    for _ in range(10):
        ring.answer = ProviderAnswer("fine", "scripted-1", "stop", Usage(90, 10))
        await ring.ask(ring.build_call(tokens=100))
        ring.clock.seconds += 6.0
    large = ring.build_call(tokens=900)
    waiting = [asyncio.create_task(ring.ask(large))]
    await asyncio.sleep(0)
    for _ in range(20):
        with pytest.raises(LLMNoPermitError):
            await ring.ask(is_last=False)
        waiting.append(asyncio.create_task(ring.ask()))
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert ring.entered[10] is large


async def test_room_is_not_kept_for_long_for_one_who_stopped_waiting() -> None:
    ring = limit_without_time(tokens_per_minute=1000)
    ring.answer = ProviderAnswer("fine", "scripted-1", "stop", Usage(400, 100))
    await ring.ask()
    large = asyncio.create_task(ring.ask(ring.build_call(tokens=900)))
    await let_others_run()
    ring.clock.seconds += 0.1
    with pytest.raises(LLMNoPermitError):
        await ring.ask(is_last=False)
    large.cancel()
    ring.clock.seconds += 5.0
    await ring.ask(is_last=False)


async def test_a_request_that_never_fits_is_refused_with_what_to_change() -> None:
    ring = limit(tokens_per_minute=1000, tokens_per_day=5000)
    with pytest.raises(
        LLMUnsupportedError, match=r"1200 tokens.*limits\.tokens_per_minute.*'a'.*max_tokens"
    ) as refused:
        await ring.ask(ring.build_call(tokens=1200))
    assert refused.value.falls_back
    assert not refused.value.parks
    assert await ring.count_used() == {"tokens_per_minute": 0, "tokens_per_day": 0}


@pytest.mark.parametrize("limits", [{"requests_per_minute": 500}, {}])
async def test_what_the_provider_says_in_an_answer_is_kept_to(limits: dict[str, int]) -> None:
    ring = limit(**limits)
    reading = QuotaReading("requests", "minute", 500, 0, 40.0)
    ring.answer = ProviderAnswer("fine", "scripted-1", "stop", Usage(8, 4), quota=(reading,))
    await ring.ask()
    with pytest.raises(LLMNoPermitError, match="told requests"):
        await ring.ask(is_last=False)


@pytest.mark.parametrize("limits", [{"requests_per_minute": 500}, {}])
async def test_what_the_provider_says_in_a_refusal_is_kept_to(limits: dict[str, int]) -> None:
    ring = limit(**limits)
    refused = LLMRateLimitedError("slow down")
    refused.quota = (QuotaReading("requests", "minute", 500, 0, 40.0),)
    ring.answer = refused
    with pytest.raises(LLMRateLimitedError):
        await ring.ask()
    with pytest.raises(LLMNoPermitError, match="told requests"):
        await ring.ask(is_last=False)


async def test_an_answer_without_usage_counts_as_reserved() -> None:
    ring = limit(tokens_per_minute=1000)
    ring.answer = ProviderAnswer("fine", "scripted-1", "stop")
    await ring.ask()
    assert await ring.count_used() == {"tokens_per_minute": 100}


async def test_who_gives_up_waiting_in_the_line_frees_the_way() -> None:
    ring = limit_without_time(in_flight=1)
    ring.leave.clear()
    first = asyncio.create_task(ring.ask())
    await let_others_run()
    waiting = [asyncio.create_task(ring.ask()) for _ in range(3)]
    await let_others_run()
    waiting[0].cancel()
    ring.leave.set()
    await asyncio.gather(first, *waiting[1:])
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert await ring.count_used() == {"in_flight": 0}


async def test_hundreds_who_wait_ask_no_more_than_one_would() -> None:
    ring = limit(requests_per_minute=1)
    await ring.ask()
    calls = [ring.build_call(deadline_seconds=100.0) for _ in range(300)]
    answers = await asyncio.gather(*(ring.ask(call) for call in calls), return_exceptions=True)
    assert sum(answer is FINE for answer in answers) == 1
    assert len(ring.clock.slept) < 40
