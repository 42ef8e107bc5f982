"""Tells what went wrong from an error in OpenAI's dialect: by code, type and status, never by its text."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from llm_pool.providers.failures import build_failure, choose_class
from llm_pool.providers.http import HttpAnswer
from llm_pool.providers.quota_headers import HeaderDialect, parse_count, read_quota
from llm_pool.providers.retry_after import parse_wait, read_retry_after
from shared.attempts import QuotaReading
from shared.errors import (
    LLMAuthenticationError,
    LLMBrokenAnswerError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
)

_CLASS_BY_CODE: Mapping[str, type[LLMError]] = {
    "context_length_exceeded": LLMContextTooLongError,
    "content_filter": LLMContentBlockedError,
    "content_policy_violation": LLMContentBlockedError,
    # HTTP 429 like a full minute, but no waiting helps: the account has no credit left.
    "insufficient_quota": LLMQuotaExhaustedError,
    "billing_hard_limit_reached": LLMQuotaExhaustedError,
    "billing_not_active": LLMQuotaExhaustedError,
    "model_not_found": LLMModelNotFoundError,
    "invalid_api_key": LLMAuthenticationError,
    "API_KEY_INVALID": LLMAuthenticationError,  # Gemini, with HTTP 400
    "rate_limit_exceeded": LLMRateLimitedError,
    "server_error": LLMOverloadedError,
    # Groq, with HTTP 400: the model failed, not the request.
    "json_validate_failed": LLMBrokenAnswerError,
    "tool_use_failed": LLMBrokenAnswerError,
}
_CLASS_BY_TYPE: Mapping[str, type[LLMError]] = {
    "insufficient_quota": LLMQuotaExhaustedError,
    "server_error": LLMOverloadedError,
    "exceed_context_size_error": LLMContextTooLongError,  # llama.cpp
}
_CLASS_BY_TYPE_ALONE: Mapping[str, type[LLMError]] = {
    "authentication_error": LLMAuthenticationError,
    "invalid_request_error": LLMInvalidRequestError,
    "overloaded_error": LLMOverloadedError,
    "rate_limit_error": LLMRateLimitedError,
    "requests": LLMRateLimitedError,
    "tokens": LLMRateLimitedError,
    "BadRequestError": LLMInvalidRequestError,  # vLLM
    "InternalServerError": LLMOverloadedError,
}
"""Coarser than a status, so asked only where an error came after HTTP 200."""

_PACIFIC_STANDARD_TIME = timezone(timedelta(hours=-8))

Fields = Mapping[str, Any]


def find_error(document: object) -> object:
    """OpenAI: an object under `error`; mlx-lm: a text there; vLLM once: the object itself; Gemini: all in a list;
    OpenRouter: under the choice too; Groq: under `x_groq` in a stream.
    """
    if isinstance(document, list):
        document = document[0] if document else None
    if not isinstance(document, dict):
        return None
    if document.get("object") == "error":
        return document
    return document.get("error") or _find_error_inside(document)


def _find_error_inside(document: Fields) -> object:
    extension, choices = document.get("x_groq"), document.get("choices")
    inside = extension if isinstance(extension, dict) else None
    if inside is None and isinstance(choices, list) and choices and isinstance(choices[0], dict):
        inside = choices[0]
    return None if inside is None else inside.get("error")


def map_error(answer: HttpAnswer, headers: HeaderDialect, now: datetime) -> LLMError:
    """An error inside HTTP 200 may carry its status as `code`: OpenRouter's, or one in the middle of a stream."""
    error = find_error(answer.document)
    fields = error if isinstance(error, dict) else {}
    details = _list_details(fields)
    retry_after_seconds = read_retry_after(answer.headers, now)
    if retry_after_seconds is None:
        retry_after_seconds = _find_retry_delay(details, now)
    text = fields.get("message") if fields else error
    return build_failure(
        _choose_class(answer, fields, details, is_told_when=retry_after_seconds is not None),
        f"HTTP {answer.status}: {text}" if isinstance(text, str) else f"HTTP {answer.status}",
        retry_after_seconds=retry_after_seconds,
        quota=read_quota(answer.headers, headers, now) or tuple(_read_violations(details, now)),
    )


def _choose_class(
    answer: HttpAnswer, fields: Fields, details: Iterable[Fields], *, is_told_when: bool
) -> type[LLMError]:
    if answer.status == 413:  # Groq calls a prompt that never fits a full minute
        return LLMContextTooLongError
    code = fields.get("code")
    status = code if answer.status == 200 and isinstance(code, int) else answer.status
    named = (_CLASS_BY_CODE.get(str(code)), _CLASS_BY_TYPE.get(str(fields.get("type"))), _choose_by_details(details))
    for error_class in named:
        if error_class is not None:
            return error_class
    if _was_flagged(fields):
        return LLMContentBlockedError
    if status == 402 and is_told_when:  # OpenRouter: the money is held for calls in flight
        return LLMRateLimitedError
    if status == 200:
        return _CLASS_BY_TYPE_ALONE.get(str(fields.get("type")), LLMBrokenAnswerError)
    return _heed_advice(choose_class(status), answer.headers.get("x-should-retry"))


def _heed_advice(error_class: type[LLMError], should_retry: str | None) -> type[LLMError]:
    """OpenAI's own word on whether to try again."""
    if should_retry == "true" and not error_class.is_retryable:
        return LLMOverloadedError
    if should_retry == "false" and error_class is LLMRateLimitedError:
        return LLMQuotaExhaustedError
    return error_class


def _was_flagged(fields: Fields) -> bool:
    """OpenRouter's moderation, which answers HTTP 403 like a wrong key."""
    metadata = fields.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("reasons"))


def _list_details(fields: Fields) -> list[Fields]:
    """Google's."""
    details = fields.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _choose_by_details(details: Iterable[Fields]) -> type[LLMError] | None:
    classes = (_CLASS_BY_CODE.get(str(detail.get("reason"))) for detail in details)
    return next((error_class for error_class in classes if error_class is not None), None)


def _find_retry_delay(details: Iterable[Fields], now: datetime) -> float | None:
    delays = (detail.get("retryDelay") for detail in details)
    return next((parse_wait(delay, now) for delay in delays if isinstance(delay, str)), None)


def _read_violations(details: Iterable[Fields], now: datetime) -> Iterable[QuotaReading]:
    """Google's name of a quota, such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`, says which it is."""
    for detail in details:
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            name = violation.get("quotaId") if isinstance(violation, dict) else None
            if isinstance(name, str):
                is_daily = "PerDay" in name
                yield QuotaReading(
                    kind="input_tokens" if "InputToken" in name else "requests",
                    period="day" if is_daily else "minute",
                    limit=parse_count(str(violation.get("quotaValue"))),
                    remaining=0,
                    resets_in_seconds=_count_until_midnight(now) if is_daily else None,
                )


def _count_until_midnight(now: datetime) -> float:
    """Google's days end at midnight in California: of its two times the later, so that nobody comes too early."""
    there = now.astimezone(_PACIFIC_STANDARD_TIME)
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - there).total_seconds()
