"""Answers, pieces of answers and errors, as OpenAI writes them. Pure."""

import base64
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from fastapi.responses import JSONResponse

from llm_pool.dialects.bodies import write_provider_data
from llm_pool.dialects.failures import build_headers, decide_kind
from llm_pool.types import CompletionResponse, EmbeddingResponse, StreamChunk, ToolCall, ToolCallDelta
from shared import errors
from shared.attempts import Usage
from shared.errors import InputError, LLMError

INVALID: Final = "invalid_request_error"

# Status, type and code by class; a client of OpenAI's makes its typed errors of the status.
_ERRORS: Mapping[type[LLMError], tuple[int, str, str | None]] = {
    errors.LLMInvalidRequestError: (400, INVALID, None),
    errors.LLMUnsupportedError: (400, INVALID, "unsupported"),
    errors.LLMContextTooLongError: (400, INVALID, "context_length_exceeded"),
    errors.LLMContentBlockedError: (400, INVALID, "content_filter"),
    errors.LLMRateLimitedError: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.LLMNoPermitError: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.LLMBudgetExceededError: (429, "insufficient_quota", "insufficient_quota"),
    errors.LLMTimeoutError: (504, "server_error", "timeout"),
}
_UNAVAILABLE = (503, "server_error", "unavailable")


def refuse(error: LLMError | InputError) -> JSONResponse:
    if isinstance(error, InputError):
        status = 404 if error.http_status == 404 else 400
        code = "model_not_found" if status == 404 else None
        return JSONResponse(_describe(f"{error.problem}; {error.remedy}", INVALID, error.field, code), status)
    status = _ERRORS.get(decide_kind(error), _UNAVAILABLE)[0]
    return JSONResponse(describe_error(error), status, headers=build_headers(error))


def describe_error(error: LLMError) -> dict[str, object]:
    _, kind, code = _ERRORS.get(decide_kind(error), _UNAVAILABLE)
    return _describe(str(error), kind, None, code)


def build_completion(response: CompletionResponse, completion_id: str, created: int) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": response.content, "refusal": None}
    if response.tool_calls:
        message["content"] = response.content or None
        message["tool_calls"] = [write_call(call) for call in response.tool_calls]
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": response.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": response.finish_reason}],
        "usage": build_usage(response.usage),
        "llmyard": build_note(response),
    }


def build_note(response: CompletionResponse | EmbeddingResponse) -> dict[str, object]:
    """What OpenAI has no words for; its clients keep fields they do not know."""
    cost_usd = None if response.cost_usd is None else str(response.cost_usd)
    return {
        "provider": response.provider,
        "deployment": response.deployment,
        "attempts": len(response.attempts),
        "cost_usd": cost_usd,
        "latency_seconds": response.latency_seconds,
    }


def build_usage(usage: Usage | None) -> dict[str, object] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
    }


def build_embeddings(response: EmbeddingResponse, encoding: Literal["float", "base64"]) -> dict[str, object]:
    usage = response.usage or Usage(0, 0)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encode(vector) if encoding == "base64" else vector}
            for index, vector in enumerate(response.vectors)
        ],
        "model": response.model,
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
        "llmyard": build_note(response),
    }


def build_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llmyard"}


class ChatStream:
    """Server-sent events of one answer; `[DONE]` ends those that came whole."""

    media_type = "text/event-stream"

    def __init__(self, completion_id: str, created: int, model: str, includes_usage: bool) -> None:
        """`model` is the name that was asked for: who answers is known at the end only."""
        self._head = {"id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._includes_usage = includes_usage

    def open(self) -> Iterable[bytes]:
        return (self._write_choice({"role": "assistant", "content": ""}),)

    def write(self, chunk: StreamChunk) -> Iterable[bytes]:
        if chunk.response is None:
            return (self._write_choice(_write_delta(chunk)),)
        return self._close(chunk.response)

    def write_error(self, error: LLMError) -> Iterable[bytes]:
        return (_event(describe_error(error)),)

    def _close(self, response: CompletionResponse) -> tuple[bytes, ...]:
        last = self._write_choice({}, response.finish_reason, llmyard=build_note(response))
        usage = {**self._head, "model": response.model, "choices": [], "usage": build_usage(response.usage)}
        return (last, *((_event(usage),) if self._includes_usage else ()), b"data: [DONE]\n\n")

    def _write_choice(self, delta: Mapping[str, Any], finish_reason: str | None = None, **note: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._includes_usage else {}
        return _event({**self._head, "choices": [choice], **usage, **note})


def _write_delta(chunk: StreamChunk) -> dict[str, Any]:
    delta: dict[str, Any] = {"content": chunk.delta} if chunk.delta else {}
    if chunk.tool_calls:
        delta["tool_calls"] = [_write_call_delta(piece) for piece in chunk.tool_calls]
    return delta


def write_call(call: ToolCall) -> dict[str, object]:
    """A whole call of a tool, in a message."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function, **write_provider_data(call)}


def _write_call_delta(piece: ToolCallDelta) -> dict[str, object]:
    function: dict[str, str] = {"arguments": piece.arguments}
    if piece.name is not None:
        function["name"] = piece.name
    head = {} if piece.id is None else {"id": piece.id, "type": "function"}
    return {"index": piece.index, **head, "function": function, **write_provider_data(piece)}


def _describe(message: str, kind: str, field: str | None, code: str | None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def _encode(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _event(document: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
