"""Reads answers in OpenAI's dialect: whole ones, streams, and vectors. Pure."""

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from llm_pool.providers.fields import (
    Fields,
    find_fields,
    find_index,
    find_list,
    find_text,
    read_openai_usage,
    require_fields,
)
from llm_pool.providers.http import HttpAnswer, parse_json
from llm_pool.providers.openai_errors import find_error, map_error
from llm_pool.providers.quota_headers import NONE
from llm_pool.types import EmbeddingAnswer, FinishReason, ProviderAnswer, ProviderChunk, ToolCall, ToolCallDelta
from shared.attempts import QuotaReading, Usage
from shared.errors import LLMBrokenAnswerError, LLMContentBlockedError

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_DONE = b"[DONE]"
_THOUGHTS = ("reasoning_content", "reasoning")
"""DeepSeek, vLLM and llama.cpp; OpenRouter and Groq."""


def read_answer(document: object, model: str, quota: tuple[QuotaReading, ...] = ()) -> ProviderAnswer:
    """`model` names the answer where the server does not.

    Raises:
        LLMBrokenAnswerError: it is not what the dialect promises; an answer without `finish_reason` was cut off.
        LLMContentBlockedError: a filter withheld the answer, or the model refused.
    """
    fields = require_fields(document)
    choices = find_list(fields, "choices")
    choice = require_fields(choices[0] if choices else None)
    message = find_fields(choice, "message") or {}
    tool_calls = tuple(_read_tool_call(call, index) for index, call in enumerate(find_list(message, "tool_calls")))
    finish_reason = _read_finish_reason(choice, has_tool_calls=bool(tool_calls))
    content = find_text(message, "content")
    if finish_reason == "content_filter" or (content is None and message.get("refusal")):
        raise LLMContentBlockedError("the provider's filter or the model itself withheld the answer")
    if finish_reason is None:
        raise LLMBrokenAnswerError("the answer has no finish_reason")
    return ProviderAnswer(
        content or "",
        find_text(fields, "model") or model,
        finish_reason,
        read_openai_usage(fields.get("usage")),
        tool_calls,
        quota,
    )


class ChatStream:
    """Takes the events of one stream in order."""

    def __init__(self) -> None:
        self._calls: dict[int, str] = {}
        """The id of each tool call so far."""
        self._was_refused = False

    def read(self, event: bytes) -> ProviderChunk | None:
        """None where there is nothing in it for us.

        Raises:
            LLMError: the error that the event tells of.
            LLMBrokenAnswerError: it is not what the dialect promises.
        """
        if event.strip() == _DONE:
            return None
        document = parse_json(event)
        if find_error(document):
            raise map_error(HttpAnswer(200, {}, document), NONE, datetime.now(UTC))
        fields = require_fields(document)
        choices = find_list(fields, "choices")
        usage = read_openai_usage(fields.get("usage"))
        if not choices:  # the last chunk, with the usage alone; Azure's first, with its filter's findings
            return None if usage is None else ProviderChunk(usage=usage)
        return self._read_choice(require_fields(choices[0]), usage, find_text(fields, "model"))

    def _read_choice(self, choice: Fields, usage: Usage | None, model: str | None) -> ProviderChunk | None:
        if choice.get("index"):  # a second answer, which only an option can have asked for
            return None
        delta = find_fields(choice, "delta") or {}
        pieces = find_list(delta, "tool_calls")
        tool_calls = tuple(self._read_piece(require_fields(piece)) for piece in pieces)
        text = find_text(delta, "content") or ""
        self._was_refused = self._was_refused or bool(delta.get("refusal"))
        finish_reason = _read_finish_reason(choice, has_tool_calls=bool(self._calls))
        if finish_reason is not None and self._was_refused:
            finish_reason = "content_filter"
        is_thinking = any(map(delta.get, _THOUGHTS))
        if not (text or tool_calls or finish_reason or usage or is_thinking):
            return None
        return ProviderChunk(text, tool_calls, finish_reason, usage, model, is_thinking=is_thinking)

    def _read_piece(self, piece: Fields) -> ToolCallDelta:
        function = find_fields(piece, "function") or {}
        id_ = find_text(piece, "id") or None
        index = self._choose_index(find_index(piece, "index"), id_)
        is_first = index not in self._calls
        if is_first:
            self._calls[index] = id_ or f"call_{index}"
        return ToolCallDelta(
            index,
            self._calls[index] if is_first else None,
            find_text(function, "name") or None,
            find_text(function, "arguments") or "",
            _read_provider_data(piece),
        )

    def _choose_index(self, index: int | None, id_: str | None) -> int:
        """Gemini tells none, or 0 for every call: a new id begins a new call, and no id goes on with the last."""
        if id_ is not None:
            known = next((known for known, known_id in self._calls.items() if known_id == id_), None)
            if known is not None:
                return known
            if index is None or index in self._calls:
                return len(self._calls)
        return max(self._calls, default=0) if index is None else index


def read_vectors(document: object, model: str, wanted: int, quota: tuple[QuotaReading, ...] = ()) -> EmbeddingAnswer:
    """
    Raises:
        LLMBrokenAnswerError: not `wanted` vectors of one length.
    """
    fields = require_fields(document)
    entries = [require_fields(entry) for entry in find_list(fields, "data")]
    # Some leave out the index, others only that of the first.
    numbered = sorted(enumerate(entries), key=lambda pair: _choose_position(find_index(pair[1], "index"), pair[0]))
    vectors = tuple(_read_vector(entry.get("embedding")) for _, entry in numbered)
    if len(vectors) != wanted or len({len(vector) for vector in vectors}) != 1 or not vectors[0]:
        raise LLMBrokenAnswerError(f"the answer has not {wanted} vectors of one length")
    usage = read_openai_usage(fields.get("usage"))
    return EmbeddingAnswer(vectors, find_text(fields, "model") or model, usage, quota)


def _choose_position(index: int | None, place: int) -> int:
    return place if index is None else index


def _read_vector(vector: Any) -> tuple[float, ...]:
    try:
        if isinstance(vector, str):
            raw = base64.b64decode(vector, validate=True)
            return struct.unpack(f"<{len(raw) // 4}f", raw)
        return tuple(map(float, vector))
    except (TypeError, ValueError, OverflowError, binascii.Error, struct.error) as error:
        raise LLMBrokenAnswerError("the answer holds what is no vector") from error


def _read_tool_call(call: object, index: int) -> ToolCall:
    fields = require_fields(call)
    function = find_fields(fields, "function") or {}
    name = find_text(function, "name")
    if not name:
        raise LLMBrokenAnswerError("the answer has a tool call without a name")
    return ToolCall(
        find_text(fields, "id") or f"call_{index}",
        name,
        find_text(function, "arguments") or "{}",
        _read_provider_data(fields),
    )


def _read_provider_data(call: Fields) -> str | None:
    """Google's extension, which holds the signature of the thoughts that led to the call."""
    extra = call.get("extra_content")
    return json.dumps(extra) if extra else None


def _read_finish_reason(choice: Fields, *, has_tool_calls: bool) -> FinishReason | None:
    """A tool named by the request is called with `stop`, and so is every one of Gemini's in a stream."""
    reason = find_text(choice, "finish_reason")
    if not reason:
        return None
    if reason not in _FINISH_REASONS:
        raise LLMBrokenAnswerError("the answer has no known finish_reason")
    return "tool_calls" if has_tool_calls and reason == "stop" else _FINISH_REASONS[reason]
