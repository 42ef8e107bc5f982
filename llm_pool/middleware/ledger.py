"""Attempt ring, innermost: whatever was tried is written down, answered, failed or cancelled."""

import asyncio

from llm_pool.call import AttemptCall, AttemptHandler
from llm_pool.types import ProviderAnswer
from shared.attempts import Attempt
from shared.clock import Clock


class Ledger:
    """Appends one `Attempt` to the call for each try."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> ProviderAnswer:
        started_at, started = self._clock.now(), self._clock.monotonic()
        answer: ProviderAnswer | None = None
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
                )
            )


def _describe(failure: BaseException) -> str:
    return "the caller cancelled it" if isinstance(failure, asyncio.CancelledError) else str(failure)
