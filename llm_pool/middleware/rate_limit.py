"""Attempt ring: each try takes a permit first, and what it took in the end is settled after.

Where somebody else can be asked, nobody waits here. Who waits, waits in one line for each deployment: only its first
asks the store, so that hundreds of waiting calls cost no more than one, and none overtakes a larger one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from uuid import uuid4

import structlog

from llm_pool.call import AttemptCall, AttemptHandler, Wait
from llm_pool.stores.permits.base import Need, Permit, PermitStore, Refusal
from llm_pool.types import Answer
from shared.attempts import QuotaReading
from shared.clock import Clock
from shared.errors import LLMConnectionError, LLMError, LLMNoPermitError, LLMUnsupportedError

log = structlog.get_logger()


class _Line:
    """Those who wait for one deployment, the one who came first in front."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.given_back = asyncio.Event()
        """A call of this process ended, and may have left something."""


class RateLimit:
    """Requests and tokens are reserved before a try, and settled from its usage; given back on failure and cancel."""

    def __init__(
        self, store: PermitStore, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._lines: dict[str, _Line] = {}
        self._prefix = uuid4().hex
        self._numbers = count()

    def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Awaitable[Answer]:
        if self._store.counts(call.deployment.name, call.deployment.limits):
            return self._ask_with_permit(call, proceed)
        return self._ask_freely(call, proceed)

    async def _ask_freely(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        """Nothing is counted of this deployment yet, but its provider may tell of a quota now."""
        readings: tuple[QuotaReading, ...] = ()
        try:
            answer = await proceed(call)
            readings = answer.quota
        except LLMError as error:
            readings = error.quota
            raise
        finally:
            if readings:
                await self._store.lower(call.deployment.name, readings)
        return answer

    async def _ask_with_permit(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        permit = await self._take(call)
        try:
            answer = await proceed(call)
        except LLMConnectionError as error:
            await self._release(permit, error.quota, was_sent=error.was_sent)
            raise
        except LLMError as error:
            await self._release(permit, error.quota, was_sent=True)
            raise
        except BaseException:
            await self._release(permit, (), was_sent=True)
            raise
        await self._store.settle(permit, answer.usage.total_tokens if answer.usage else None, answer.quota)
        self._tell(permit.need.deployment)
        return answer

    async def _take(self, call: AttemptCall) -> Permit:
        """
        Raises:
            LLMNoPermitError: none in time.
            LLMUnsupportedError: there never will be one.
        """
        need = self._describe(call)
        _refuse_too_large(need)
        answer = await self._store.reserve(need)
        if isinstance(answer, Permit):
            return answer
        if not call.is_last:
            raise _describe_refusal(need, answer)
        return await self._wait(call, need, answer)

    def _describe(self, call: AttemptCall) -> Need:
        deployment, estimate = call.deployment, call.call.estimate
        return Need(
            f"{self._prefix}-{next(self._numbers)}",
            deployment.name,
            deployment.limits,
            estimate.prompt_tokens,
            estimate.bound_completion(deployment),
        )

    async def _wait(self, call: AttemptCall, need: Need, refusal: Refusal) -> Permit:
        started = self._clock.monotonic()
        give_up_at = _choose_end(call, started)
        if _is_useless(refusal, started, give_up_at):
            raise _describe_refusal(need, refusal)
        line = self._lines.setdefault(need.deployment, _Line())
        try:
            async with asyncio.timeout(give_up_at - started), line.turn:
                return await self._ask_or_withdraw(line, need, started, give_up_at)
        except TimeoutError:
            raise _describe_refusal(need, refusal) from None
        finally:
            waited = self._clock.monotonic() - started
            call.call.waits.append(Wait(need.deployment, call.deployment.provider, waited))
            log.debug("permit_awaited", deployment=need.deployment, cell=refusal.cell, waited_seconds=round(waited, 3))

    async def _ask_or_withdraw(self, line: _Line, need: Need, started: float, give_up_at: float) -> Permit:
        """Whoever leaves, for whatever reason, must not go on keeping room from those who stay."""
        try:
            return await self._ask_until(line, need, started, give_up_at)
        except BaseException:
            await self._store.withdraw(need)
            raise

    async def _ask_until(self, line: _Line, need: Need, started: float, give_up_at: float) -> Permit:
        while True:
            line.given_back.clear()
            now = self._clock.monotonic()
            answer = await self._store.reserve(need, now - started)
            if isinstance(answer, Permit):
                return answer
            if _is_useless(answer, now, give_up_at):
                raise _describe_refusal(need, answer)
            await self._pause(line, answer)

    async def _pause(self, line: _Line, refusal: Refusal) -> None:
        if not refusal.may_come_sooner:
            await self._sleep(refusal.ask_again_seconds)
            return
        ends = {
            asyncio.ensure_future(self._sleep(refusal.ask_again_seconds)),
            asyncio.ensure_future(line.given_back.wait()),
        }
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _release(self, permit: Permit, readings: tuple[QuotaReading, ...], *, was_sent: bool) -> None:
        try:
            await self._store.release(permit, was_sent=was_sent, readings=readings)
        finally:
            self._tell(permit.need.deployment)

    def _tell(self, deployment: str) -> None:
        line = self._lines.get(deployment)
        if line is not None:
            line.given_back.set()


def _choose_end(call: AttemptCall, now: float) -> float:
    """Nobody waits here for longer than the group says while its fallbacks could be asked."""
    deadline = call.call.deadline
    return min(deadline, now + call.group.longest_wait_seconds) if call.group.fallbacks else deadline


def _is_useless(refusal: Refusal, now: float, give_up_at: float) -> bool:
    """To wait any longer: there will surely be nothing in time."""
    return not refusal.may_come_sooner and now + refusal.wait_seconds > give_up_at


def _refuse_too_large(need: Need) -> None:
    """Waiting would not help, another deployment may: so it is treated as something that this one cannot do."""
    cell = need.find_too_small()
    if cell is not None:
        raise LLMUnsupportedError(
            f"the request may take {need.tokens} tokens, more than `limits.{cell}` of deployment '{need.deployment}' "
            f"ever allows: raise that limit, name a smaller `max_tokens`, or shorten the prompt"
        )


def _describe_refusal(need: Need, refusal: Refusal) -> LLMNoPermitError:
    return LLMNoPermitError(
        f"deployment '{need.deployment}' has no {refusal.cell.replace('_', ' ')} left; "
        f"there may be a permit in {refusal.wait_seconds:.1f} s",
        retry_after_seconds=refusal.wait_seconds,
    )
