"""The same pool, asked over HTTP: for workers that should hold no provider's key."""

from pydantic import ValidationError

from llm_pool.providers.failures import parse_retry_after
from llm_pool.providers.http import Connections, HttpAnswer
from llm_pool.types import CompletionRequest, CompletionResponse
from llm_pool.wire import build_request_body, read_error, read_response
from shared.clock import Clock, SystemClock
from shared.errors import LLMBrokenAnswerError, LLMConnectionError, LLMUnavailableError

LONGEST_SECONDS = 900.0
"""Waited where the request names no bound: the service knows its groups' own, and ends before."""
GRACE_SECONDS = 5.0
"""Left to the service beyond the request's own bound, to say itself that it ran out."""


class RemotePool:
    """Raises what the service's pool raised; a service that does not answer is an outage like any other."""

    def __init__(self, base_url: str, clock: Clock | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._clock = clock or SystemClock()
        self._connections = Connections()

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        """See `CompletionPool.complete`."""
        bound = LONGEST_SECONDS if request.timeout_seconds is None else request.timeout_seconds + GRACE_SECONDS
        try:
            answer = await self._connections.post_json(
                f"{self._base_url}/complete", {}, build_request_body(request), bound
            )
        except (LLMConnectionError, LLMBrokenAnswerError) as error:
            raise LLMUnavailableError(f"The pool service did not answer: {error}") from error
        return self._read(answer)

    async def aclose(self) -> None:
        await self._connections.aclose()

    def _read(self, answer: HttpAnswer) -> CompletionResponse:
        try:
            if answer.status == 200:
                return read_response(answer.document)
            error = read_error(answer.status, answer.document, parse_retry_after(answer.headers, self._clock.now()))
        except ValidationError as fault:
            raise LLMUnavailableError(f"{self._base_url} does not answer as a pool service does") from fault
        raise error
