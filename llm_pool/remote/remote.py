"""The same pool, asked over HTTP: for workers that should hold no provider's key."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import structlog

from llm_pool.asking.asking import HEALTH_SECONDS, Asking, TokenCount
from llm_pool.call import DEFAULT_RUN, RunConfig
from llm_pool.middleware.validation import check_bound
from llm_pool.pool_status import PoolStatus
from llm_pool.providers.http import Connections, HttpAnswer
from llm_pool.providers.retry_after import read_retry_after
from llm_pool.remote.budget import RemoteBudgets
from llm_pool.remote.stream import Refused, read_stream
from llm_pool.remote.wire import (
    read_embedding,
    read_error,
    read_health,
    read_response,
    read_status,
    read_token_count,
)
from llm_pool.remote.wire_bodies import build_run_fields, dump_embedding_request, dump_request
from llm_pool.types import (
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Request,
    StreamChunk,
)
from shared.clock import Clock, SystemClock
from shared.errors import (
    ConfigurationError,
    InputError,
    LLMBrokenAnswerError,
    LLMConnectionError,
    LLMError,
    LLMStreamBrokenError,
    LLMTimeoutError,
    LLMUnavailableError,
    LLMYardError,
)

LONGEST_SECONDS = 900.0
"""Waited where the request names no bound: the service knows its groups' own, and ends before."""
GRACE_SECONDS = 5.0
"""Left to the service beyond the request's own bound, to say itself that it ran out."""

ReadT = TypeVar("ReadT")
ResponseT = TypeVar("ResponseT", CompletionResponse, EmbeddingResponse)

log = structlog.get_logger()


class RemotePool(Asking):
    """Raises what the service's pool raised; a service that does not answer is an outage like any other."""

    def __init__(self, base_url: str, clock: Clock | None = None) -> None:
        """
        Raises:
            ConfigurationError: it is no HTTP address.
        """
        if not base_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"The pool service's address is '{base_url}': set LLM_POOL_URL to an http:// or https:// URL."
            )
        self._base_url = base_url.rstrip("/")
        self._clock = clock or SystemClock()
        self._connections = Connections()
        self._budgets = RemoteBudgets()

    async def complete(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> CompletionResponse:
        """See `CompletionPool.complete`."""
        return await self._ask("complete", request, dump_request(request), read_response, config)

    async def embed(self, request: EmbeddingRequest, config: RunConfig = DEFAULT_RUN) -> EmbeddingResponse:
        """See `CompletionPool.embed`."""
        return await self._ask("embed", request, dump_embedding_request(request), read_embedding, config)

    async def stream(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> AsyncIterator[StreamChunk]:
        """See `CompletionPool.stream`."""
        async with self._budgets.hold(config.budget_tracker) as purse:
            body = {**dump_request(request), **build_run_fields(config, purse.usd)}
            pieces = read_stream(self._connections, f"{self._base_url}/stream", body, _choose_bound(request))
            async with aclosing(self._relay(pieces)) as chunks:
                async for chunk in chunks:
                    purse.note(chunk.response)
                    yield chunk

    def runs_foreign_code(self, model: str) -> bool:  # noqa: ARG002 - the seam's signature
        """Whatever runs, runs in the service."""
        return False

    async def count_tokens(self, request: CompletionRequest) -> TokenCount:
        """See `AskablePool.count_tokens`."""
        answer = await self._post("count_tokens", dump_request(request), _choose_bound(request))
        return self._read(answer, read_token_count)

    async def health(self, timeout_seconds: float = HEALTH_SECONDS) -> Mapping[str, bool]:
        """Nobody is known to be there when the service itself is not."""
        try:
            return await self._get("deployments", read_health, timeout_seconds)
        except LLMYardError as error:
            log.warning("pool_service_unreachable", error_type=type(error).__name__)
            return {}

    async def get_status(self) -> PoolStatus:
        """See `AskablePool.get_status`."""
        return await self._get("status", read_status, HEALTH_SECONDS)

    async def aclose(self) -> None:
        await self._connections.aclose()

    async def _ask(
        self,
        path: str,
        request: Request,
        fields: Mapping[str, Any],
        read: Callable[[object], ResponseT],
        config: RunConfig,
    ) -> ResponseT:
        async with self._budgets.hold(config.budget_tracker) as purse:
            body = {**fields, **build_run_fields(config, purse.usd)}
            response = self._read(await self._post(path, body, _choose_bound(request)), read)
            purse.note(response)
            return response

    async def _get(self, path: str, read: Callable[[object], ReadT], timeout_seconds: float) -> ReadT:
        try:
            answer = await self._connections.get_json(f"{self._base_url}/{path}", {}, timeout_seconds)
        except (LLMConnectionError, LLMBrokenAnswerError) as error:
            raise _explain_outage(error) from error
        return self._read(answer, read)

    async def _post(self, path: str, body: Mapping[str, object], bound_seconds: float) -> HttpAnswer:
        try:
            return await self._connections.post_json(f"{self._base_url}/{path}", {}, body, bound_seconds)
        except (LLMConnectionError, LLMBrokenAnswerError) as error:
            raise _explain_outage(error) from error

    async def _relay(self, pieces: AsyncGenerator[StreamChunk, None]) -> AsyncGenerator[StreamChunk, None]:
        texts: list[str] = []
        try:
            async with aclosing(pieces):
                async for chunk in pieces:
                    texts.append(chunk.delta)
                    yield chunk
        except Refused as refused:
            raise self._read_error(refused.answer) from refused
        except (LLMConnectionError, LLMBrokenAnswerError, LLMTimeoutError) as error:
            raise _explain_end(error, texts) from error

    def _read(self, answer: HttpAnswer, read: Callable[[object], ReadT]) -> ReadT:
        if answer.status != 200:
            raise self._read_error(answer)
        try:
            return read(answer.document)
        except ValueError as fault:
            raise self._explain_stranger() from fault

    def _read_error(self, answer: HttpAnswer) -> InputError | LLMError:
        try:
            return read_error(answer.status, answer.document, read_retry_after(answer.headers, self._clock.now()))
        except ValueError:
            return self._explain_stranger()

    def _explain_stranger(self) -> LLMUnavailableError:
        return LLMUnavailableError(f"{self._base_url} does not answer as a pool service does")


def _choose_bound(request: Request) -> float:
    check_bound(request)
    return LONGEST_SECONDS if request.timeout_seconds is None else request.timeout_seconds + GRACE_SECONDS


def _explain_outage(error: LLMError) -> LLMUnavailableError:
    return LLMUnavailableError(f"The pool service did not answer: {error}")


def _explain_end(error: LLMError, texts: Sequence[str]) -> LLMError:
    """Of a stream that the service did not end itself."""
    if texts:
        return LLMStreamBrokenError(error, "".join(texts))
    return error if isinstance(error, LLMTimeoutError) else _explain_outage(error)
