"""Asks LiteLLM once, without retries, callbacks or words on the terminal. The only file that imports it."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import litellm
from litellm import exceptions as theirs

from llm_pool.providers.failures import choose_class, shorten
from llm_pool.providers.retry_after import read_retry_after
from shared.errors import (
    LLMAuthenticationError,
    LLMBrokenAnswerError,
    LLMConnectionError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
    LLMTimeoutError,
)

litellm.suppress_debug_info = True

_ONCE: Mapping[str, Any] = {"num_retries": 0, "max_retries": 0}

# From the narrow to the wide: many of them are subclasses of BadRequestError.
_CLASSES: Mapping[type[BaseException], type[LLMError]] = {
    theirs.ContextWindowExceededError: LLMContextTooLongError,
    theirs.ContentPolicyViolationError: LLMContentBlockedError,
    theirs.LiteLLMUnknownProvider: LLMModelNotFoundError,
    theirs.NotFoundError: LLMModelNotFoundError,
    theirs.AuthenticationError: LLMAuthenticationError,
    theirs.PermissionDeniedError: LLMAuthenticationError,
    theirs.BudgetExceededError: LLMQuotaExhaustedError,
    theirs.RateLimitError: LLMRateLimitedError,
    theirs.Timeout: LLMTimeoutError,
    theirs.APIResponseValidationError: LLMBrokenAnswerError,
    theirs.InternalServerError: LLMOverloadedError,
    theirs.ServiceUnavailableError: LLMOverloadedError,
    theirs.BadGatewayError: LLMOverloadedError,
    TimeoutError: LLMTimeoutError,
    OSError: LLMConnectionError,
}


_CLASS_BY_CODE: Mapping[str, type[LLMError]] = {
    "context_length_exceeded": LLMContextTooLongError,
    "content_filter": LLMContentBlockedError,
    "content_policy_violation": LLMContentBlockedError,
    "insufficient_quota": LLMQuotaExhaustedError,
}


class LiteLLM:
    """See `litellm.Sdk`."""

    async def complete(self, arguments: Mapping[str, Any]) -> object:
        try:
            answer: Any = await litellm.acompletion(**{**arguments, **_ONCE})
        except Exception as error:
            raise map_error(error) from error
        return answer.model_dump()

    async def stream(self, arguments: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        try:
            answer: Any = await litellm.acompletion(**{**arguments, **_ONCE})
            async with aclosing(answer) as chunks:
                async for chunk in chunks:
                    yield json.dumps(_leave_out_made_up_end(chunk.model_dump(), answer)).encode()
        except Exception as error:
            raise map_error(error) from error

    async def embed(self, arguments: Mapping[str, Any]) -> object:
        try:
            answer: Any = await litellm.aembedding(**{**arguments, **_ONCE})
        except Exception as error:
            raise map_error(error) from error
        return answer.model_dump()


def _leave_out_made_up_end(document: dict[str, Any], answer: Any) -> dict[str, Any]:
    """LiteLLM ends a stream that was cut off with a `stop` of its own; it remembers whether the provider said so."""
    reasons = [getattr(answer, name, "") for name in ("received_finish_reason", "intermittent_finish_reason")]
    if reasons != [None, None]:
        return document
    return {**document, "choices": [{**choice, "finish_reason": None} for choice in document.get("choices", ())]}


def map_error(error: Exception) -> LLMError:
    """By the provider's own code where it can be found, by class, by status; whatever else it raises is no answer."""
    cause = getattr(error, "original_exception", None)  # of a stream that broke
    if isinstance(cause, Exception):
        return map_error(cause)
    by_code = next((_CLASS_BY_CODE[code] for code in _list_codes(error) if code in _CLASS_BY_CODE), None)
    by_class = next((ours for kind, ours in _CLASSES.items() if isinstance(error, kind)), None)
    status = getattr(error, "status_code", None)
    by_status = choose_class(status) if isinstance(status, int) else LLMBrokenAnswerError
    error_class = by_code or by_class or by_status
    return error_class(shorten(str(error)), retry_after_seconds=_find_retry_after(error))


def _list_codes(error: BaseException) -> Iterator[str]:
    """LiteLLM drops the body of an error; what it was raised from has it still."""
    raised: BaseException | None = error
    while raised is not None:
        yield str(getattr(raised, "code", None))
        raised = raised.__cause__ or raised.__context__


def _find_retry_after(error: Exception) -> float | None:
    headers = getattr(error, "litellm_response_headers", None)
    return read_retry_after(headers, datetime.now(UTC)) if isinstance(headers, Mapping) else None
