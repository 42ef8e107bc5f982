"""The HTTP dialect of the pool service, in both directions, so that `service` and `remote` cannot drift apart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticCustomError

from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse, Role
from shared.attempts import Attempt
from shared.errors import (
    InputError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMTimeoutError,
    LLMUnavailableError,
    NotFoundError,
)
from shared.text import find_fault, make_storable

ALL_UNAVAILABLE = "All providers unavailable"
"""The whole error body that callers of this service know."""

STATUS_BY_ERROR: Mapping[type[LLMError], int] = {
    LLMInvalidRequestError: 400,
    LLMContentBlockedError: 400,
    LLMContextTooLongError: 413,
    LLMUnavailableError: 503,
    LLMTimeoutError: 504,
}
"""Everything a pool may raise: the others fall back, and end as unavailable."""

_ERROR_BY_NAME = {error.__name__: error for error in STATUS_BY_ERROR}
_STRICT = ConfigDict(frozen=True, extra="forbid")


def _refuse_unstorable(text: str) -> str:
    fault = find_fault(text)
    if fault is not None:
        raise PydanticCustomError("unstorable_text", "{fault}", {"fault": f"it {fault.problem}"})
    return text


_Text = Annotated[str, AfterValidator(_refuse_unstorable)]
_ATTEMPTS = TypeAdapter(tuple[Attempt, ...])
_RESPONSE = TypeAdapter(CompletionResponse)


class MessageBody(BaseModel):
    """One turn."""

    model_config = _STRICT

    role: Role
    content: _Text


class CompleteBody(BaseModel):
    """What `POST /complete` takes."""

    model_config = _STRICT

    model: _Text
    messages: tuple[MessageBody, ...]
    tenant_id: _Text | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    include_attempts: bool = False
    """Whether a failure should say what was tried; an answer always does."""

    def to_request(self) -> CompletionRequest:
        return CompletionRequest(
            model=self.model,
            messages=tuple(ChatMessage(message.role, message.content) for message in self.messages),
            tenant_id=self.tenant_id,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            timeout_seconds=self.timeout_seconds,
        )


def build_request_body(request: CompletionRequest) -> dict[str, object]:
    """As a pool in another process asks: with the attempts of a failure, which the job ledger keeps."""
    given = {name: value for name, value in asdict(request).items() if value is not None}
    return {**given, "include_attempts": True}


def dump_response(response: CompletionResponse) -> bytes:
    return _RESPONSE.dump_json(response)


def read_response(document: object) -> CompletionResponse:
    """
    Raises:
        pydantic.ValidationError: it is not what `dump_response` writes.
    """
    return _RESPONSE.validate_python(document)


def build_error_body(error: LLMError, include_attempts: bool) -> dict[str, object]:
    body: dict[str, object] = {
        "error": ALL_UNAVAILABLE
        if isinstance(error, LLMUnavailableError)
        else {"type": type(error).__name__, "message": str(error)}
    }
    if include_attempts:
        body["attempts"] = _ATTEMPTS.dump_python(error.attempts, mode="json")
    return body


def build_error_headers(error: LLMError) -> dict[str, str]:
    """In whole seconds for everyone, and exactly for those who know the second name."""
    if error.retry_after_seconds is None:
        return {}
    return {
        "retry-after": str(math.ceil(error.retry_after_seconds)),
        "retry-after-ms": str(round(error.retry_after_seconds * 1000)),
    }


def read_error(status: int, document: object, retry_after_seconds: float | None) -> InputError | LLMError:
    """The error that the service's pool raised; whatever is not in this dialect did not come from a pool.

    Raises:
        pydantic.ValidationError: its attempts are not what `build_error_body` writes.
    """
    body = document if isinstance(document, Mapping) else {}
    error = body.get("error")
    fields = error if isinstance(error, Mapping) else {}
    if {"field", "problem", "remedy"} <= fields.keys():
        input_error = NotFoundError if status == 404 else InputError
        return input_error(str(fields["field"]), str(fields["problem"]), str(fields["remedy"]))
    attempts = _ATTEMPTS.validate_python(body.get("attempts", ()))
    if error == ALL_UNAVAILABLE:
        return LLMUnavailableError(retry_after_seconds=retry_after_seconds, attempts=attempts)
    error_class = _ERROR_BY_NAME.get(str(fields.get("type")))
    if error_class is None:
        return LLMUnavailableError(
            f"The pool service answered with HTTP {status}", retry_after_seconds=retry_after_seconds
        )
    return error_class(str(fields.get("message")), retry_after_seconds=retry_after_seconds, attempts=attempts)


def describe_fault(location: Sequence[int | str], problem: str) -> InputError:
    """For a body that does not have the shape of `CompleteBody`."""
    field = ".".join(str(part) for part in location if part != "body") or "body"
    return InputError(make_storable(field), problem, "send {model, messages: [{role, content}], tenant_id}")
