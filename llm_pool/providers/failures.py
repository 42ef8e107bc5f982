"""What the providers' error answers have in common: HTTP's statuses, and what an error carries."""

from collections.abc import Mapping

from llm_pool.providers.quota_headers import choose_reset
from shared.attempts import QuotaReading
from shared.errors import (
    LLMAuthenticationError,
    LLMBrokenAnswerError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
    LLMTimeoutError,
)
from shared.text import make_storable

MESSAGE_CHARACTERS = 500
"""Longer error texts are cut: some gateways answer with a web page."""

_CLASS_BY_STATUS: Mapping[int, type[LLMError]] = {
    401: LLMAuthenticationError,
    402: LLMQuotaExhaustedError,
    403: LLMAuthenticationError,
    404: LLMModelNotFoundError,
    408: LLMTimeoutError,
    409: LLMOverloadedError,
    413: LLMContextTooLongError,
    425: LLMOverloadedError,
    429: LLMRateLimitedError,
    498: LLMOverloadedError,  # Groq: the tier's capacity is used up
}


def choose_class(status: int) -> type[LLMError]:
    """By status alone; a success or a redirect that is no answer is a broken one."""
    if status in _CLASS_BY_STATUS:
        return _CLASS_BY_STATUS[status]
    if status >= 500:
        return LLMOverloadedError
    return LLMInvalidRequestError if status >= 400 else LLMBrokenAnswerError


def shorten(text: str) -> str:
    """A provider's own words, fit for a record."""
    return make_storable(text[:MESSAGE_CHARACTERS])


def build_failure(
    error_class: type[LLMError],
    message: str,
    *,
    retry_after_seconds: float | None = None,
    quota: tuple[QuotaReading, ...] = (),
) -> LLMError:
    """With all that the provider said beside it; where it named no moment, a used up quota's reset is one."""
    if retry_after_seconds is None and error_class is LLMRateLimitedError:
        retry_after_seconds = choose_reset(quota)
    error = error_class(shorten(message), retry_after_seconds=retry_after_seconds)
    error.quota = quota
    return error
