"""Attempt ring, inside the retries and outside the permits: a deployment that fails is left alone, by everybody.

Each failure is judged by what it says about the deployment: a prompt too long says nothing, a wrong key says enough.
"""

import structlog

from llm_pool.call import AttemptCall, AttemptHandler
from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import LONGEST_NAMED_SECONDS, Admission, CooldownStore, Cooling, build_key
from llm_pool.types import Answer
from shared.clock import Clock
from shared.errors import (
    LLMAuthenticationError,
    LLMCoolingDownError,
    LLMError,
    LLMModelNotFoundError,
    LLMNoPermitError,
    LLMQuotaExhaustedError,
    LLMStoreUnavailableError,
    LLMStreamBrokenError,
    LLMTimeoutError,
)

log = structlog.get_logger()

_FOR_AN_OPERATOR = (LLMAuthenticationError, LLMQuotaExhaustedError, LLMModelNotFoundError)
"""The next call would fail alike, until somebody mends it."""
_OF_OUR_OWN_MAKING = (LLMNoPermitError, LLMStoreUnavailableError)
"""Nothing was sent."""
_ROUNDING_SECONDS = 1e-3
_SLACK_SECONDS = 5.0
"""By which a place outlasts the longest that its holder may take."""


class Cooldown:
    """Raises `LLMCoolingDownError` instead of asking, while the deployment is left alone."""

    def __init__(self, store: CooldownStore, policy: CooldownPolicy, clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._keys: dict[str, str] = {}

    async def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        admission = await self._admit(call)
        try:
            answer = await proceed(call)
        except LLMError as error:
            await self._judge(call, admission, error)
            raise
        except BaseException:
            await self._store.release(admission)
            raise
        await self._store.succeed(admission)
        if admission.way == "probe":
            log.info("deployment_recovered", deployment=call.deployment.name)
        return answer

    async def _admit(self, call: AttemptCall) -> Admission:
        name = call.deployment.name
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = build_key(call.deployment)
        admission = await self._store.admit(key, self._choose_lease(call))
        if admission.way == "refused":
            raise _refuse(call, admission.retry_after_seconds)
        return admission

    def _choose_lease(self, call: AttemptCall) -> float:
        """As long as one try may take, its wait for a permit included, which without fallbacks may last until the
        deadline. Only a stream can take longer.
        """
        left = call.call.deadline - self._clock.monotonic()
        longest = call.deployment.timeout_seconds + call.group.longest_wait_seconds
        return (min(left, longest) if call.group.fallbacks else left) + _SLACK_SECONDS

    async def _judge(self, call: AttemptCall, admission: Admission, error: LLMError) -> None:
        """
        Raises:
            LLMCoolingDownError: another try here would be refused: there is no use in waiting for it.
        """
        cause = find_cause(error)
        if not cause.parks or isinstance(cause, _OF_OUR_OWN_MAKING) or self._is_out_of_time(call, error):
            await self._store.release(admission)
            return
        cooling = await self._store.fail(admission, decide_cool_seconds(cause, self._policy))
        if cooling is None:
            return
        if cooling.is_new:
            log.warning(
                "deployment_cooled",
                deployment=call.deployment.name,
                seconds=round(cooling.left_seconds, 3),
                error_type=type(cause).__name__,
            )
        if error.is_retryable and not _is_soon_over(cooling, error):
            raise _refuse(call, cooling.left_seconds) from error

    def _is_out_of_time(self, call: AttemptCall, error: LLMError) -> bool:
        """A caller that gave it too little time has itself to blame."""
        return isinstance(error, LLMTimeoutError) and self._clock.monotonic() >= call.call.deadline


def _is_soon_over(cooling: Cooling, error: LLMError) -> bool:
    """Whoever waits as long as the provider asked for may be the probe."""
    return (
        error.retry_after_seconds is not None and cooling.left_seconds <= error.retry_after_seconds + _ROUNDING_SECONDS
    )


def _refuse(call: AttemptCall, seconds: float) -> LLMCoolingDownError:
    return LLMCoolingDownError(
        f"'{call.deployment.name}' is left alone for another {seconds:.3g} s", retry_after_seconds=seconds
    )


def find_cause(error: LLMError) -> LLMError:
    """What broke a stream is told by the error behind it."""
    cause = error.__cause__
    return cause if isinstance(error, LLMStreamBrokenError) and isinstance(cause, LLMError) else error


def decide_cool_seconds(error: LLMError, policy: CooldownPolicy) -> float | None:
    """How long this one failure is reason enough to leave a deployment alone; None: it only counts."""
    named = min(error.retry_after_seconds or 0.0, LONGEST_NAMED_SECONDS)
    if isinstance(error, _FOR_AN_OPERATOR):
        return max(named, policy.longest_seconds)
    return named if named > 0 else None
