"""What HTTP says about a failure, as data."""

import pytest

from llm_pool.providers.failures import MESSAGE_CHARACTERS, choose_class, shorten
from shared import errors


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
        (498, errors.LLMOverloadedError),
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
