"""What the pool service says, in both directions, so that `service` and `remote` cannot drift apart.

What it is asked stands in `wire_bodies`.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import TypeAdapter

from llm_pool.asking.asking import TokenCount
from llm_pool.pool_status import PoolStatus
from llm_pool.types import CompletionResponse, EmbeddingResponse, StreamChunk
from shared import errors
from shared.attempts import Attempt
from shared.errors import InputError, LLMError, NotFoundError

ALL_UNAVAILABLE: Final = "All providers unavailable"
"""The whole error body that callers of this service know."""

STATUS_BY_ERROR: Mapping[type[LLMError], int] = {
    errors.LLMInvalidRequestError: 400,
    errors.LLMContentBlockedError: 400,
    errors.LLMUnsupportedError: 400,
    errors.LLMBudgetExceededError: 402,
    errors.LLMContextTooLongError: 413,
    errors.LLMNoPermitError: 429,
    errors.LLMSchemaMismatchError: 502,
    errors.LLMStreamBrokenError: 502,
    errors.LLMCoolingDownError: 503,
    errors.LLMStoreUnavailableError: 503,
    errors.LLMUnavailableError: 503,
    errors.LLMTimeoutError: 504,
}
"""Everything a pool may raise: the others fall back, and end as unavailable."""

_ATTEMPTS = TypeAdapter(tuple[Attempt, ...])
_USD: TypeAdapter[Decimal | None] = TypeAdapter(Decimal | None)
_RESPONSE = TypeAdapter(CompletionResponse)
_EMBEDDING = TypeAdapter(EmbeddingResponse)
_CHUNK = TypeAdapter(StreamChunk)
_TOKEN_COUNT = TypeAdapter(TokenCount)
_HEALTH = TypeAdapter(dict[str, bool])
_STATUS = TypeAdapter(PoolStatus)


_CACHE_TOKENS: Final = {"cached_prompt_tokens", "cache_write_tokens"}


def dump_response(response: CompletionResponse) -> bytes:
    """`usage` has two fields, as callers know it, unless there is something to say in the others."""
    usage = response.usage
    is_plain = usage is None or not (usage.cached_prompt_tokens or usage.cache_write_tokens)
    return _RESPONSE.dump_json(response, exclude={"usage": _CACHE_TOKENS} if is_plain else None)


def read_response(document: object) -> CompletionResponse:
    """
    Raises:
        pydantic.ValidationError: it is not what `dump_response` writes; so below.
    """
    return _RESPONSE.validate_python(document)


def dump_embedding(response: EmbeddingResponse) -> bytes:
    return _EMBEDDING.dump_json(response)


def read_embedding(document: object) -> EmbeddingResponse:
    return _EMBEDDING.validate_python(document)


def dump_chunk(chunk: StreamChunk) -> bytes:
    return _CHUNK.dump_json(chunk, exclude_defaults=True) + b"\n"


def read_line(line: bytes) -> StreamChunk:
    """
    Raises:
        LLMError: the line says that the stream failed.
        ValueError: it is neither a chunk nor an error.
    """
    document = json.loads(line)
    if not isinstance(document, dict) or "error" not in document:
        return _CHUNK.validate_python(document)
    raise read_error(200, document, document.get("retry_after_seconds"))


def dump_token_count(count: TokenCount) -> bytes:
    return _TOKEN_COUNT.dump_json(count)


def read_token_count(document: object) -> TokenCount:
    return _TOKEN_COUNT.validate_python(document)


def read_health(document: object) -> dict[str, bool]:
    return _HEALTH.validate_python(document)


def dump_status(status: PoolStatus) -> bytes:
    return _STATUS.dump_json(status)


def read_status(document: object) -> PoolStatus:
    return _STATUS.validate_python(document)


def choose_status(error: LLMError) -> int:
    """Of an error that no pool raises: as of one that every deployment answered with."""
    return STATUS_BY_ERROR.get(type(error), 503)


def build_error_body(error: LLMError, include_attempts: bool, spent_usd: Decimal | None = None) -> dict[str, object]:
    """`spent_usd` of the purse that came with the request, if one did."""
    is_known = type(error) is errors.LLMUnavailableError
    body: dict[str, object] = {"error": ALL_UNAVAILABLE if is_known else _describe(error)}
    if include_attempts:
        body["attempts"] = _ATTEMPTS.dump_python(error.attempts, mode="json")
    if spent_usd is not None:
        body["spent_usd"] = str(spent_usd)
    return body


def dump_error_line(error: LLMError, include_attempts: bool, spent_usd: Decimal | None = None) -> bytes:
    """The last line of a stream that failed after something was said; there are no headers any more."""
    body = build_error_body(error, include_attempts, spent_usd)
    line = {**body, "retry_after_seconds": error.retry_after_seconds}
    return json.dumps(line).encode() + b"\n"


def build_error_headers(error: LLMError) -> dict[str, str]:
    """In whole seconds for everyone, and to the millisecond for those who know the second name; never too early."""
    if error.retry_after_seconds is None:
        return {}
    return {
        "retry-after": str(math.ceil(error.retry_after_seconds)),
        "retry-after-ms": str(math.ceil(error.retry_after_seconds * 1000)),
    }


def read_error(status: int, document: object, retry_after_seconds: float | None) -> InputError | LLMError:
    """The error that the service's pool raised; whatever is not in this dialect did not come from a pool.

    Raises:
        ValueError: it is not what `build_error_body` writes.
    """
    body = document if isinstance(document, Mapping) else {}
    error = body.get("error")
    fields = error if isinstance(error, Mapping) else {}
    if {"field", "problem", "remedy"} <= fields.keys():
        input_error = NotFoundError if status == 404 else InputError
        return input_error(str(fields["field"]), str(fields["problem"]), str(fields["remedy"]))
    attempts = _ATTEMPTS.validate_python(body.get("attempts", ()))
    told: Mapping[str, Any] = {"retry_after_seconds": retry_after_seconds, "attempts": attempts}
    failure = _read_failure(status, error, fields, told)
    failure.spent_usd = _USD.validate_python(body.get("spent_usd"))
    return failure


def _read_failure(status: int, error: object, fields: Mapping[str, Any], told: Mapping[str, Any]) -> LLMError:
    if error == ALL_UNAVAILABLE:
        return errors.LLMUnavailableError(**told)
    if fields.get("type") not in _KINDS:
        return errors.LLMUnavailableError(f"The pool service answered with HTTP {status}", **told)
    return _read(fields, told)


def _describe(error: LLMError) -> dict[str, object]:
    fields = _FIELDS.get(type(error), _no_fields)
    return {"type": type(error).__name__, "message": str(error), **fields(error)}


def _no_fields(_: LLMError) -> dict[str, object]:
    return {}


def _budget_fields(error: Any) -> dict[str, object]:
    resets_at: datetime | None = error.resets_at
    return {
        "account": error.account,
        "limit_usd": str(error.limit_usd),
        "resets_at": None if resets_at is None else resets_at.isoformat(),
    }


_FIELDS: Mapping[type[LLMError], Callable[[Any], dict[str, object]]] = {
    errors.LLMBudgetExceededError: _budget_fields,
    errors.LLMSchemaMismatchError: lambda error: {"content": error.content},
    errors.LLMStreamBrokenError: lambda error: {
        "partial_text": error.partial_text,
        "cause": _describe(error.__cause__),
    },
}
"""What an error carries beside its message."""


def _read(fields: Mapping[str, Any], told: Mapping[str, Any]) -> LLMError:
    name = str(fields["type"])
    try:
        if name in _READERS:
            return _READERS[name](fields, told)
        return _KINDS[name](str(fields["message"]), **told)
    except (KeyError, TypeError, ArithmeticError) as fault:
        raise ValueError(f"{name} lacks what it carries") from fault


def _read_budget(fields: Mapping[str, Any], told: Mapping[str, Any]) -> LLMError:
    resets_at = fields["resets_at"]
    return errors.LLMBudgetExceededError(
        fields["account"],
        Decimal(fields["limit_usd"]),
        None if resets_at is None else datetime.fromisoformat(resets_at),
        **told,
    )


def _read_schema_mismatch(fields: Mapping[str, Any], told: Mapping[str, Any]) -> LLMError:
    return errors.LLMSchemaMismatchError(
        str(fields["message"]), content=str(fields["content"]), attempts=told["attempts"]
    )


def _read_broken_stream(fields: Mapping[str, Any], told: Mapping[str, Any]) -> LLMError:
    cause = _read(fields["cause"], {"retry_after_seconds": told["retry_after_seconds"]})
    return errors.LLMStreamBrokenError(cause, str(fields["partial_text"]), attempts=told["attempts"])


_READERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], LLMError]] = {
    "LLMBudgetExceededError": _read_budget,
    "LLMSchemaMismatchError": _read_schema_mismatch,
    "LLMStreamBrokenError": _read_broken_stream,
}


def _walk(kind: type[LLMError]) -> dict[str, type[LLMError]]:
    below = {name: found for child in kind.__subclasses__() for name, found in _walk(child).items()}
    return {kind.__name__: kind, **below}


_KINDS = _walk(LLMError)
