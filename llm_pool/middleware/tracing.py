"""Request ring, outermost: one log line for each request, without what was said in it."""

import structlog

from llm_pool.call import Call, RequestHandler
from llm_pool.types import CompletionResponse
from shared.clock import Clock

log = structlog.get_logger()


class Tracing:
    """Logs `request_answered` or `request_failed`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, call: Call, proceed: RequestHandler) -> CompletionResponse:
        bound = log.bind(model_group=call.request.model, tenant_id=call.request.tenant_id)
        try:
            response = await proceed(call)
        except BaseException as error:
            bound.warning(
                "request_failed",
                error_type=type(error).__name__,
                attempts=len(call.attempts),
                latency_seconds=round(self._clock.monotonic() - call.entered_at, 3),
            )
            raise
        bound.info(
            "request_answered",
            deployment=response.deployment,
            attempts=len(response.attempts),
            latency_seconds=round(response.latency_seconds, 3),
        )
        return response
