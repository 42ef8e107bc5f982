"""Tells what went wrong from an error in Anthropic's dialect: by code, type and status, never by its text."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from llm_pool.providers import quota_headers
from llm_pool.providers.failures import build_failure, choose_class
from llm_pool.providers.http import HttpAnswer
from llm_pool.providers.quota_headers import read_quota
from llm_pool.providers.retry_after import read_retry_after
from shared.errors import (
    LLMAuthenticationError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
)

_CLASS_BY_CODE: Mapping[str, type[LLMError]] = {
    # HTTP 429 like a full minute, but no waiting helps: the account may spend no more.
    "contract_spend_limit_reached": LLMQuotaExhaustedError,
    "enforced_spend_limit_reached": LLMQuotaExhaustedError,
    "linked_organization_spend_limit_reached": LLMQuotaExhaustedError,
}
_CLASS_BY_TYPE: Mapping[str, type[LLMError]] = {
    "invalid_request_error": LLMInvalidRequestError,
    "authentication_error": LLMAuthenticationError,
    "billing_error": LLMQuotaExhaustedError,
    "permission_error": LLMAuthenticationError,
    "not_found_error": LLMModelNotFoundError,
    "request_too_large": LLMContextTooLongError,
    "rate_limit_error": LLMRateLimitedError,
    "timeout_error": LLMOverloadedError,
    "api_error": LLMOverloadedError,
    "overloaded_error": LLMOverloadedError,
}

Fields = Mapping[str, Any]


def find_error(document: object) -> Fields:
    """Empty where there is none."""
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def map_error(answer: HttpAnswer, now: datetime) -> LLMError:
    """HTTP 200 stands for an error in the middle of a stream."""
    error = find_error(answer.document)
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    named = _CLASS_BY_CODE.get(str(code)) or _CLASS_BY_TYPE.get(str(error.get("type")))
    return build_failure(
        named or choose_class(answer.status),
        f"HTTP {answer.status}: {error.get('message', 'no message')}",
        retry_after_seconds=read_retry_after(answer.headers, now),
        quota=read_quota(answer.headers, quota_headers.ANTHROPIC, now),
    )
