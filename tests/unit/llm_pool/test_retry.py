"""How often the same deployment is asked, and how long is waited in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from llm_pool.call import AttemptCall
from llm_pool.catalog import ModelGroup
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.types import ProviderAnswer
from shared.errors import (
    LLMAuthenticationError,
    LLMCoolingDownError,
    LLMError,
    LLMNoPermitError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
)
from tests.builders import build_call
from tests.fakes.moving_clock import MovingClock
from tests.fakes.scripted_provider import deploy


class Tries:
    """Asks one deployment through the middleware; the provider raises what it is told, in turn, the last for ever."""

    def __init__(self, *errors: LLMError, takes_seconds: float = 0.0) -> None:
        self.clock = MovingClock()
        self.errors = list(errors)
        self.takes_seconds = takes_seconds
        self.count = 0

    async def answer(self, _: AttemptCall) -> ProviderAnswer:
        self.clock.seconds += self.takes_seconds
        self.count += 1
        raise self.errors[min(self.count, len(self.errors)) - 1]

    async def ask(self, retries: int = 2, timeout_seconds: float = 600.0, has_next: bool = False) -> LLMError:
        now = self.clock.monotonic()
        call = build_call(entered_at=now, deadline=now + timeout_seconds)
        retry = Retry(self.clock, Backoff(draw=lambda _, high: high), self.clock.sleep)
        attempt = AttemptCall(call, deploy("a"), ModelGroup("fast", (), retries=retries), has_next=has_next)
        with pytest.raises(LLMError) as caught:
            await retry(attempt, self.answer)
        return caught.value


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
async def test_there_is_no_sleep_after_the_last_try(retries: int) -> None:
    """LiteLLM sleeps once more, and a fallback comes seconds late."""
    tries = Tries(LLMOverloadedError("down"))
    await tries.ask(retries)
    assert (tries.count, len(tries.clock.slept)) == (retries + 1, retries)


async def test_what_the_provider_asks_for_is_waited_exactly_and_without_jitter() -> None:
    tries = Tries(
        LLMRateLimitedError("later", retry_after_seconds=0.006), LLMOverloadedError("x", retry_after_seconds=31)
    )
    await tries.ask()
    assert tries.clock.slept == [0.006, 31]


@pytest.mark.parametrize(("named_seconds", "tries"), [(0.5, 3), (2.0, 1)])
async def test_a_long_wait_is_not_sat_out_while_another_could_answer(named_seconds: float, tries: int) -> None:
    asked = Tries(LLMRateLimitedError("full", retry_after_seconds=named_seconds))
    await asked.ask(has_next=True)
    assert asked.count == tries


async def test_a_wait_of_nothing_is_a_wait_too() -> None:
    tries = Tries(LLMRateLimitedError("now", retry_after_seconds=0.0))
    await tries.ask()
    assert tries.clock.slept == [0.0, 0.0]


@pytest.mark.parametrize(
    "error",
    [
        LLMQuotaExhaustedError("insufficient_quota", retry_after_seconds=1.0),
        LLMAuthenticationError("no"),
        LLMCoolingDownError("sick", retry_after_seconds=1.0),
        LLMNoPermitError("full", retry_after_seconds=1.0),
    ],
)
async def test_what_asking_again_would_not_help_is_asked_once(error: LLMError) -> None:
    tries = Tries(error)
    assert await tries.ask() is error
    assert (tries.count, tries.clock.slept) == (1, [])


async def test_a_wait_that_would_pass_the_deadline_is_not_begun() -> None:
    tries = Tries(LLMRateLimitedError("later", retry_after_seconds=5.0), takes_seconds=1.0)
    await tries.ask(timeout_seconds=6.0)
    assert (tries.count, tries.clock.slept) == (1, [])


async def test_a_wait_within_the_deadline_is_kept() -> None:
    tries = Tries(LLMRateLimitedError("later", retry_after_seconds=5.0), takes_seconds=1.0)
    await tries.ask(timeout_seconds=6.5)
    assert (tries.count, tries.clock.slept) == (2, [5.0])


@given(failed=st.integers(1, 40), share=st.floats(0, 1))
def test_a_wait_lies_anywhere_between_nothing_and_a_bound_that_doubles(failed: int, share: float) -> None:
    backoff = Backoff(draw=lambda low, high: low + share * (high - low))
    bound = min(60.0, 2.0 ** (failed - 1))
    assert backoff.choose_wait(failed, None) == pytest.approx(share * bound)


@given(
    waits=st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=6),
    takes_seconds=st.floats(0.01, 30),
    timeout_seconds=st.floats(0.1, 120),
)
async def test_no_try_begins_after_the_deadline(
    waits: list[float | None], takes_seconds: float, timeout_seconds: float
) -> None:
    tries = Tries(*(LLMRateLimitedError("x", retry_after_seconds=wait) for wait in waits), takes_seconds=takes_seconds)
    entered_at = tries.clock.seconds
    await tries.ask(9, timeout_seconds)
    last_began_at = tries.clock.seconds - takes_seconds
    assert last_began_at <= entered_at + timeout_seconds
    assert len(tries.clock.slept) == tries.count - 1


async def test_what_is_retried_is_logged_with_its_request() -> None:
    tries = Tries(LLMOverloadedError("down", retry_after_seconds=2))
    now = tries.clock.monotonic()
    call = build_call(entered_at=now, deadline=now + 60.0)
    with capture_logs() as logs, pytest.raises(LLMOverloadedError):
        await Retry(tries.clock, sleep=tries.clock.sleep)(
            AttemptCall(call, deploy("a"), ModelGroup("fast", (), retries=1)), tries.answer
        )
    assert logs == [
        {
            "event": "attempt_failed",
            "log_level": "info",
            "request_id": str(call.request_id),
            "deployment": "a",
            "error_type": "LLMOverloadedError",
            "retry_in_seconds": 2,
        }
    ]
