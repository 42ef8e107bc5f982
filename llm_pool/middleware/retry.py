"""Attempt ring, outermost: asks the same deployment again after a fault that it may get over by itself."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from llm_pool.call import AttemptCall, AttemptHandler
from llm_pool.types import Answer
from shared.clock import Clock
from shared.errors import LLMError

log = structlog.get_logger()

LONGEST_NAMED_WAIT_SECONDS = 1.0
"""A provider that names a longer one is left for the next of its group, which may answer meanwhile."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a wait is drawn between nothing and a bound that doubles, so that callers do not return as one."""

    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    draw: Callable[[float, float], float] = random.SystemRandom().uniform
    """Gives a number between two bounds."""

    def choose_wait(self, failed: int, retry_after_seconds: float | None) -> float | None:
        """Seconds before the next try after `failed` tries; None where the provider asks for more than we wait."""
        if retry_after_seconds is None:
            return self.draw(0.0, min(self.longest_seconds, self.first_seconds * 2.0 ** (failed - 1)))
        return retry_after_seconds if retry_after_seconds <= self.longest_seconds else None


class Retry:
    """As often as the group says, never beyond the call's deadline, and with no wait after the last try."""

    def __init__(
        self,
        clock: Clock,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._sleep = sleep

    async def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        failed = 0
        while True:
            try:
                return await proceed(call)
            except LLMError as error:
                failed += 1
                wait = self._decide_wait(call, error, failed)
                if wait is None:
                    raise
                log.info(
                    "attempt_failed",
                    request_id=str(call.call.request_id),
                    deployment=call.deployment.name,
                    error_type=type(error).__name__,
                    retry_in_seconds=round(wait, 3),
                )
            await self._sleep(wait)

    def _decide_wait(self, call: AttemptCall, error: LLMError, failed: int) -> float | None:
        """None: do not try again."""
        if not error.is_retryable or failed > call.group.retries:
            return None
        if call.has_next and (error.retry_after_seconds or 0.0) > LONGEST_NAMED_WAIT_SECONDS:
            return None
        wait = self._backoff.choose_wait(failed, error.retry_after_seconds)
        if wait is None or self._clock.monotonic() + wait >= call.call.deadline:
            return None
        return wait
