"""Attempt ring, innermost: whatever was tried is written down with its cost, answered, failed or cancelled."""

import asyncio
from decimal import Decimal

from llm_pool.call import AttemptCall, AttemptHandler
from llm_pool.money.prices import Prices
from llm_pool.types import Answer
from shared.attempts import Attempt
from shared.clock import Clock


class Ledger:
    """Appends one `Attempt` to the call for each try."""

    def __init__(self, clock: Clock, prices: Prices) -> None:
        self._clock = clock
        self._prices = prices

    async def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        started_at, started = self._clock.now(), self._clock.monotonic()
        answer: Answer | None = None
        failure: BaseException | None = None
        try:
            answer = await proceed(call)
        except BaseException as error:
            failure = error
            raise
        else:
            return answer
        finally:
            call.call.attempts.append(
                Attempt(
                    deployment=call.deployment.name,
                    provider=call.deployment.provider,
                    model=answer.model if answer else call.deployment.model,
                    started_at=started_at,
                    latency_seconds=self._clock.monotonic() - started,
                    usage=answer.usage if answer else None,
                    error_type=type(failure).__name__ if failure else None,
                    error_message=_describe(failure) if failure else None,
                    cost_usd=self._find_cost(call, answer),
                )
            )

    def _find_cost(self, call: AttemptCall, answer: Answer | None) -> Decimal | None:
        """A price of ours goes before the provider's own account, which goes before the public prices."""
        if answer is None:
            return None
        if answer.cost_usd is not None and call.deployment.price is None:
            return answer.cost_usd
        return self._prices.cost(call.deployment, answer.usage, answer.model)


def _describe(failure: BaseException) -> str:
    return "the caller cancelled it" if isinstance(failure, asyncio.CancelledError) else str(failure)
