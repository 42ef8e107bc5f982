"""The rings: their order, what each does, and that an attempt is written down whatever becomes of it."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from structlog.testing import capture_logs

from llm_pool.call import AttemptCall, compose
from llm_pool.catalog import ModelGroup, Price
from llm_pool.middleware.budget import Budget
from llm_pool.middleware.cache import Cache
from llm_pool.middleware.cooldown import Cooldown
from llm_pool.middleware.ledger import Ledger
from llm_pool.middleware.metrics import ActiveMetrics, ErrorMetrics, NoMeter, RequestMetrics
from llm_pool.middleware.quota import Quota
from llm_pool.middleware.rate_limit import RateLimit
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.middleware.tracing import AttemptTracing, Tracing
from llm_pool.middleware.validation import refuse_unusable
from llm_pool.money.prices import Prices
from llm_pool.policies import CooldownPolicy, Policies
from llm_pool.pool import Instruments, Pool
from llm_pool.types import ProviderAnswer
from shared.attempts import Usage
from shared.errors import (
    ConfigurationError,
    InputError,
    LLMAuthenticationError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMUnavailableError,
    NotFoundError,
)
from tests.builders import build_call
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import Script, ask, build_catalog, build_registry, deploy

FREE = Price(Decimal(0), Decimal(0))


def build_pool(script: Script, clock: MovingClock, **group: object) -> Pool:
    retry = Retry(clock, Backoff(draw=lambda _, high: high), clock.sleep)
    catalog = build_catalog(ModelGroup("fast", (deploy("a", price=FREE),), **group))
    catalog = replace(catalog, policies=Policies(cooldown=CooldownPolicy(failures=1000)))
    return Pool(catalog, clock=clock, retry=retry, registry=build_registry({"a": script}, clock))


def test_the_order_of_the_rings() -> None:
    catalog = build_catalog(ModelGroup("fast", (deploy("a"),)))
    pool = Pool(catalog, instruments=Instruments(NoMeter()), registry=build_registry({"a": Script()}))
    requests = [type(one) for one in pool.request_ring]
    attempts = [type(one) for one in pool.attempt_ring]
    assert requests == [Tracing, RequestMetrics, type(refuse_unusable), Cache, Budget]
    assert attempts == [
        Retry, ErrorMetrics, Cooldown, RateLimit, Quota, ActiveMetrics, AttemptTracing, Ledger,
    ]  # fmt: skip


def test_who_would_count_for_nobody_is_left_out_of_the_rings() -> None:
    pool = build_pool(Script(), MovingClock())
    assert [type(one) for one in pool.request_ring] == [Tracing, type(refuse_unusable), Cache, Budget]
    assert [type(one) for one in pool.attempt_ring] == [Retry, Cooldown, RateLimit, Quota, AttemptTracing, Ledger]


async def test_the_first_of_a_ring_is_the_outermost() -> None:
    seen: list[str] = []

    def note(name: str):
        async def middleware(call: str, proceed) -> str:
            seen.append(f"{name} in")
            answer = await proceed(call)
            seen.append(f"{name} out")
            return answer

        return middleware

    async def innermost(call: str) -> str:
        return call.upper()

    assert await compose((note("a"), note("b")), innermost)("x") == "X"
    assert seen == ["a in", "b in", "b out", "a out"]


async def test_retries_double_their_wait_up_to_the_longest() -> None:
    clock = MovingClock()
    with pytest.raises(LLMUnavailableError) as caught:
        await build_pool(Script([LLMOverloadedError("down")]), clock, retries=8, timeout_seconds=900).complete(ask())
    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(caught.value.attempts) == 9


def test_a_wait_is_drawn_from_nothing_to_its_bound() -> None:
    backoff = Backoff()
    waits = [backoff.choose_wait(3, None) for _ in range(200)]
    assert all(0 <= wait <= 4 for wait in waits)
    assert min(waits) < 1 < 3 < max(waits)


async def test_no_retries_means_one_attempt_and_no_wait() -> None:
    clock = MovingClock()
    script = Script([LLMOverloadedError("down")])
    with pytest.raises(LLMUnavailableError):
        await build_pool(script, clock, retries=0).complete(ask())
    assert (len(script.asked), clock.slept) == (1, [])


async def test_what_is_not_retryable_is_asked_once() -> None:
    script = Script([LLMAuthenticationError("no key"), "fine"])
    with pytest.raises(LLMUnavailableError):
        await build_pool(script, MovingClock()).complete(ask())
    assert len(script.asked) == 1


async def test_the_provider_says_how_long_to_wait() -> None:
    clock = MovingClock()
    script = Script([LLMRateLimitedError("slow down", retry_after_seconds=7.5), "fine"])
    await build_pool(script, clock).complete(ask())
    assert clock.slept == [7.5]


@pytest.mark.parametrize(("wait", "timeout_seconds"), [(61.0, 900.0), (50.0, 40.0)])
async def test_no_wait_beyond_the_longest_or_the_deadline(wait: float, timeout_seconds: float) -> None:
    clock = MovingClock()
    script = Script([LLMRateLimitedError("slow down", retry_after_seconds=wait), "fine"])
    with pytest.raises(LLMUnavailableError) as caught:
        await build_pool(script, clock, timeout_seconds=timeout_seconds).complete(ask())
    assert clock.slept == []
    assert caught.value.retry_after_seconds == wait


async def test_each_try_is_written_down_with_its_time_and_what_it_used() -> None:
    clock = MovingClock()
    script = Script([LLMOverloadedError("down"), "fine"], takes_seconds=0.5)
    response = await build_pool(script, clock).complete(ask())
    failed, answered = response.attempts
    assert (failed.error_type, failed.error_message, failed.usage) == ("LLMOverloadedError", "down", None)
    assert (failed.deployment, failed.provider, failed.model) == ("a", "scripted", "a-model")
    assert (answered.error_type, answered.usage, answered.model) == (None, Usage(3, 2), "scripted-1")
    assert answered.latency_seconds == pytest.approx(0.5)
    assert (answered.started_at - failed.started_at).total_seconds() == pytest.approx(1.5)
    assert response.latency_seconds == pytest.approx(2.0)


async def test_a_cancelled_try_is_written_down_too() -> None:
    script = Script(hangs=True)
    pool = build_pool(script, MovingClock())
    with capture_logs() as logs:
        task = asyncio.create_task(pool.complete(ask()))
        await script.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert script.cancelled.is_set()
    assert [(log["event"], log["error_type"], log["attempts"]) for log in logs] == [
        ("request_failed", "CancelledError", 1)
    ]


async def test_a_cancelled_try_says_so() -> None:
    clock = MovingClock()
    call = build_call(entered_at=clock.monotonic())

    async def cancelled(_: AttemptCall) -> ProviderAnswer:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Ledger(clock, Prices(clock))(AttemptCall(call, deploy("a"), ModelGroup("fast", ())), cancelled)
    assert [(attempt.error_type, attempt.error_message) for attempt in call.attempts] == [
        ("CancelledError", "the caller cancelled it")
    ]


@pytest.mark.parametrize(
    ("price", "told", "cost_usd"),
    [
        (None, Decimal("0.5"), Decimal("0.5")),
        (None, Decimal(0), Decimal(0)),
        (None, None, None),
        (FREE, Decimal("0.5"), Decimal(0)),
    ],
    ids=["told", "told to be nothing", "not known", "a price of ours"],
)
async def test_the_cost_a_provider_tells_counts_where_no_price_of_ours_does(
    price: Price | None, told: Decimal | None, cost_usd: Decimal | None
) -> None:
    clock, call = MovingClock(), build_call()

    async def answer(_: AttemptCall) -> ProviderAnswer:
        return ProviderAnswer("fine", "m", "stop", Usage(3, 2), cost_usd=told)

    ledger = Ledger(clock, Prices(clock))
    await ledger(AttemptCall(call, deploy("a", price=price), ModelGroup("fast", ())), answer)
    assert [attempt.cost_usd for attempt in call.attempts] == [cost_usd]


async def test_a_surprise_is_no_reason_to_ask_again() -> None:
    script = Script([ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        await build_pool(script, MovingClock()).complete(ask())
    assert len(script.asked) == 1


async def test_one_line_for_each_request_and_nothing_of_what_was_said() -> None:
    with capture_logs() as logs:
        await build_pool(Script(["the answer"]), MovingClock()).complete(ask("fast", "the question"))
        with pytest.raises(LLMUnavailableError):
            await build_pool(Script([LLMOverloadedError("no")]), MovingClock(), retries=0).complete(ask())
    assert [log["event"] for log in logs] == ["request_answered", "request_failed"]
    assert {log["tenant_id"] for log in logs} == {"acme"}
    assert logs[0]["deployment"] == "a"
    assert logs[1]["error_type"] == "LLMUnavailableError"
    assert "the question" not in str(logs)
    assert "the answer" not in str(logs)


@pytest.mark.parametrize("text", ["a\x00b", "half \ud83d"])
async def test_text_that_cannot_be_kept_is_refused_before_anyone_is_asked(text: str) -> None:
    script = Script()
    with pytest.raises(InputError) as caught:
        await build_pool(script, MovingClock()).complete(ask("fast", "fine", text))
    assert caught.value.field == "messages.1.content"
    assert script.asked == []


async def test_an_answer_that_cannot_be_kept_is_mended() -> None:
    script = Script(["a\x00b \ud83d ü"], model="m\x00")
    response = await build_pool(script, MovingClock()).complete(ask())
    assert (response.content, response.model) == ("a�b � ü", "m�")
    assert response.attempts[0].model == "m�"


async def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(NotFoundError, match="fast"):
        await build_pool(Script(), MovingClock()).complete(ask("slow"))


async def test_temperature_is_kept_from_models_that_refuse_it() -> None:
    scripts = {"a": Script(), "b": Script()}
    catalog = build_catalog(
        ModelGroup("plain", (deploy("a"),)), ModelGroup("strict", (deploy("b", takes_temperature=False),))
    )
    pool = Pool(catalog, registry=build_registry(scripts))
    for model in ("plain", "strict"):
        request = ask(model)
        await pool.complete(type(request)(model, request.messages, temperature=0.2))
    assert [script.asked[0].temperature for script in scripts.values()] == [0.2, None]


async def test_closing_the_pool_closes_its_providers() -> None:
    script = Script()
    await build_pool(script, MovingClock()).aclose()
    assert script.closed


def test_a_deployment_of_an_unknown_provider_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="'scripted': use one of anthropic"):
        Pool(build_catalog(ModelGroup("fast", (deploy("a"),))))
