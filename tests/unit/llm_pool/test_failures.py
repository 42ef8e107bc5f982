"""What HTTP says about a failure, as data."""

from datetime import UTC, datetime

import pytest

from llm_pool.providers.failures import MESSAGE_CHARACTERS, choose_class, parse_retry_after, shorten
from shared import errors

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "?", "retry-after": "2"}, 2.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (200, errors.LLMBrokenAnswerError),
        (302, errors.LLMBrokenAnswerError),
        (400, errors.LLMInvalidRequestError),
        (401, errors.LLMAuthenticationError),
        (402, errors.LLMQuotaExhaustedError),
        (403, errors.LLMAuthenticationError),
        (404, errors.LLMModelNotFoundError),
        (408, errors.LLMTimeoutError),
        (409, errors.LLMOverloadedError),
        (413, errors.LLMContextTooLongError),
        (422, errors.LLMInvalidRequestError),
        (429, errors.LLMRateLimitedError),
        (500, errors.LLMOverloadedError),
        (502, errors.LLMOverloadedError),
        (503, errors.LLMOverloadedError),
        (504, errors.LLMOverloadedError),
        (529, errors.LLMOverloadedError),
    ],
)
def test_status(status: int, error_class: type[errors.LLMError]) -> None:
    assert choose_class(status) is error_class


def test_a_providers_words_are_cut_and_can_be_kept() -> None:
    assert shorten("x\x00" * MESSAGE_CHARACTERS) == "x�" * (MESSAGE_CHARACTERS // 2)
