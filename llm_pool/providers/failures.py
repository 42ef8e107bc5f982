"""What the providers' error answers have in common: HTTP's statuses, and the moment to come back."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

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


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After` (seconds, whole or not, or an HTTP date); never negative.

    `headers` has lower-case names, or does not care for case.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _parse_number(value)
    return seconds if seconds is not None else _parse_date(value, now)


def _parse_number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _parse_date(value: str | None, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    if moment.tzinfo is None:  # the zone `-0000` says UTC without vouching for it
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
