"""Answers and errors, as Anthropic writes them. Pure."""

import json
from collections.abc import Mapping
from typing import Final

from fastapi.responses import JSONResponse

from llm_pool.dialects.bodies import write_provider_data
from llm_pool.dialects.failures import build_headers, decide_kind
from llm_pool.types import CompletionResponse, FinishReason, ToolCall
from shared import errors
from shared.attempts import Usage
from shared.errors import InputError, LLMError

STOP_REASONS: Mapping[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
UNKNOWN_DAY: Final = "1970-01-01T00:00:00Z"
"""Anthropic's own word for a model whose release is not known."""

# Status and type by class; a client of Anthropic's makes its typed errors of either.
_ERRORS: Mapping[type[LLMError], tuple[int, str]] = {
    errors.LLMInvalidRequestError: (400, "invalid_request_error"),
    errors.LLMUnsupportedError: (400, "invalid_request_error"),
    errors.LLMContentBlockedError: (400, "invalid_request_error"),
    errors.LLMBudgetExceededError: (402, "billing_error"),
    errors.LLMContextTooLongError: (413, "request_too_large"),
    errors.LLMRateLimitedError: (429, "rate_limit_error"),
    errors.LLMNoPermitError: (429, "rate_limit_error"),
    errors.LLMTimeoutError: (504, "timeout_error"),
}
_OVERLOADED = (529, "overloaded_error")


def refuse(error: LLMError | InputError) -> JSONResponse:
    if isinstance(error, InputError):
        status, kind = (404, "not_found_error") if error.http_status == 404 else (400, "invalid_request_error")
        return JSONResponse(_describe(kind, str(error)), status)
    status = _ERRORS.get(decide_kind(error), _OVERLOADED)[0]
    return JSONResponse(describe_error(error), status, headers=build_headers(error))


def describe_error(error: LLMError) -> dict[str, object]:
    return _describe(_ERRORS.get(decide_kind(error), _OVERLOADED)[1], str(error))


def build_message(response: CompletionResponse, message_id: str) -> dict[str, object]:
    texts = [{"type": "text", "text": response.content}] if response.content else []
    return {
        **build_head(message_id, response.model),
        "content": [*texts, *(_write_call(call) for call in response.tool_calls)],
        "stop_reason": STOP_REASONS[response.finish_reason],
        "usage": build_usage(response.usage),
    }


def build_head(message_id: str, model: str) -> dict[str, object]:
    """A message that has said nothing yet."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": build_usage(None),
    }


def build_usage(usage: Usage | None) -> dict[str, int]:
    """Anthropic counts what its cache read and wrote beside the input. There is no word for not known but zero."""
    known = usage or Usage(0, 0)
    return {
        "input_tokens": known.prompt_tokens - known.cached_prompt_tokens - known.cache_write_tokens,
        "cache_creation_input_tokens": known.cache_write_tokens,
        "cache_read_input_tokens": known.cached_prompt_tokens,
        "output_tokens": known.completion_tokens,
    }


def build_model(name: str) -> dict[str, object]:
    return {"type": "model", "id": name, "display_name": name, "created_at": UNKNOWN_DAY, "lifecycle": "active"}


def _write_call(call: ToolCall) -> dict[str, object]:
    block = {"type": "tool_use", "id": call.id, "name": call.name, "input": _parse_arguments(call.arguments)}
    return {**block, **write_provider_data(call)}


def _parse_arguments(arguments: str) -> object:
    """What is no JSON object is handed on as Anthropic recommends it for its own streams."""
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"INVALID_JSON": arguments}


def _describe(kind: str, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": message}}
