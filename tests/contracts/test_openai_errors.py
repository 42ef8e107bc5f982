"""What went wrong, as OpenAI's dialect tells it: by code, type and status, whole or streamed."""

import pytest

from shared import errors
from tests.contracts.served import fail, fail_stream
from tests.fakes.dialects import OPENAI, chunk_openai, event_of
from tests.fakes.provider_server import send_json, send_stream


def error_of(**fields: object) -> dict[str, object]:
    return {"error": {"message": "as people read it", "type": None, "code": None, **fields}}


@pytest.mark.parametrize(
    ("status", "document", "error_class"),
    [
        (429, error_of(type="insufficient_quota", code="insufficient_quota"), errors.LLMQuotaExhaustedError),
        (429, error_of(type="requests", code="rate_limit_exceeded"), errors.LLMRateLimitedError),
        (413, error_of(type="tokens", code="rate_limit_exceeded"), errors.LLMContextTooLongError),
        (400, error_of(code="context_length_exceeded"), errors.LLMContextTooLongError),
        (400, error_of(code=400, type="exceed_context_size_error"), errors.LLMContextTooLongError),
        (400, error_of(code="content_filter"), errors.LLMContentBlockedError),
        (400, error_of(code="json_validate_failed"), errors.LLMBrokenAnswerError),
        (400, error_of(type="invalid_request_error"), errors.LLMInvalidRequestError),
        (400, error_of(details=[{"reason": "API_KEY_INVALID"}]), errors.LLMAuthenticationError),
        (400, error_of(code={"odd": 1}, details="odd", metadata="odd"), errors.LLMInvalidRequestError),
        (403, error_of(code="model_not_found"), errors.LLMModelNotFoundError),
        (403, error_of(code=403, metadata={"reasons": ["violence"]}), errors.LLMContentBlockedError),
        (403, error_of(code=403, metadata={"provider_name": "x"}), errors.LLMAuthenticationError),
        (402, error_of(code=402), errors.LLMQuotaExhaustedError),
        (404, error_of(type="invalid_request_error", code="model_not_found"), errors.LLMModelNotFoundError),
        (404, {"error": "a text, as mlx-lm writes it"}, errors.LLMModelNotFoundError),
        (400, {"object": "error", "message": "as vLLM wrote it", "code": 400}, errors.LLMInvalidRequestError),
        (498, error_of(), errors.LLMOverloadedError),
        (503, error_of(code=None, type="server_error"), errors.LLMOverloadedError),
        (200, error_of(code=429), errors.LLMRateLimitedError),
        (200, error_of(code=502), errors.LLMOverloadedError),
        (200, error_of(code="server_error"), errors.LLMOverloadedError),
        (200, error_of(type="overloaded_error"), errors.LLMOverloadedError),
        (200, error_of(type="invalid_request_error"), errors.LLMInvalidRequestError),
        (200, error_of(), errors.LLMBrokenAnswerError),
        (200, [error_of(code=503)], errors.LLMOverloadedError),
        (200, {"error": "a text"}, errors.LLMBrokenAnswerError),
        (
            200,
            {"choices": [{"error": {"code": 502, "message": "x"}, "finish_reason": "error"}]},
            errors.LLMOverloadedError,
        ),
    ],
)
async def test_errors_by_their_code(status: int, document: object, error_class: type[Exception]) -> None:
    assert type(await fail(OPENAI, send_json(document, status))) is error_class
    assert type(await fail_stream(OPENAI, send_json(document, status))) is error_class


@pytest.mark.parametrize(
    ("status", "headers", "error_class"),
    [
        (429, {"x-should-retry": "false"}, errors.LLMQuotaExhaustedError),
        (429, {"x-should-retry": "true"}, errors.LLMRateLimitedError),
        (400, {"x-should-retry": "true"}, errors.LLMOverloadedError),
        (500, {"x-should-retry": "false"}, errors.LLMOverloadedError),
        (402, {"Retry-After": "3"}, errors.LLMRateLimitedError),
    ],
)
async def test_errors_by_what_the_headers_advise(
    status: int, headers: dict[str, str], error_class: type[Exception]
) -> None:
    assert type(await fail(OPENAI, send_json(error_of(), status, headers))) is error_class


async def test_a_quota_that_is_used_up_for_good_is_not_retried_but_parks() -> None:
    error = await fail(OPENAI, send_json(error_of(code="insufficient_quota"), 429))
    assert (error.is_retryable, error.falls_back, error.parks) == (False, True, True)


async def test_groq_tells_of_an_error_beside_the_choices() -> None:
    events = [*OPENAI.pieces(["fi"]), event_of(chunk_openai({}, x_groq={"error": "over capacity"}))]
    error = await fail_stream(OPENAI, send_stream(OPENAI, events))
    assert "over capacity" in str(error)
