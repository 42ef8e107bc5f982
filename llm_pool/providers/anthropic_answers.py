"""Reads answers in Anthropic's dialect: whole ones and streams. Pure."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from llm_pool.providers.anthropic_errors import map_error
from llm_pool.providers.fields import (
    Fields,
    count_tokens,
    find_fields,
    find_index,
    find_list,
    find_text,
    require_fields,
)
from llm_pool.providers.http import HttpAnswer, parse_json
from llm_pool.types import FinishReason, ProviderAnswer, ProviderChunk, ToolCall, ToolCallDelta
from shared.attempts import QuotaReading, Usage
from shared.errors import LLMBrokenAnswerError, LLMContentBlockedError

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def read_answer(document: object, model: str, quota: tuple[QuotaReading, ...] = ()) -> ProviderAnswer:
    """`model` names the answer where the server does not.

    Raises:
        LLMBrokenAnswerError: it is not what the dialect promises; an answer without `stop_reason` was cut off.
        LLMContentBlockedError: the model refused.
    """
    fields = require_fields(document)
    blocks = [require_fields(block) for block in find_list(fields, "content")]
    finish_reason = _read_finish_reason(find_text(fields, "stop_reason"))
    if finish_reason == "content_filter":
        raise LLMContentBlockedError("the model refused to answer")
    return ProviderAnswer(
        "".join(find_text(block, "text") or "" for block in blocks if block.get("type") == "text"),
        find_text(fields, "model") or model,
        finish_reason,
        read_usage(fields.get("usage")),
        tuple(_read_tool_call(block) for block in blocks if block.get("type") == "tool_use"),
        quota,
    )


def read_count(document: object) -> int:
    """
    Raises:
        LLMBrokenAnswerError: there is no number of tokens in it.
    """
    count = count_tokens(require_fields(document), "input_tokens")
    if count is None:
        raise LLMBrokenAnswerError("the answer counts no tokens")
    return count


def read_usage(usage: object) -> Usage | None:
    """`input_tokens` leaves out what was written to or read from the provider's prompt cache; ours does not."""
    if not isinstance(usage, dict):
        return None
    new_tokens, completion_tokens = count_tokens(usage, "input_tokens"), count_tokens(usage, "output_tokens")
    if new_tokens is None or completion_tokens is None:
        return None
    read = count_tokens(usage, "cache_read_input_tokens") or 0
    written = count_tokens(usage, "cache_creation_input_tokens") or 0
    return Usage(new_tokens + read + written, completion_tokens, read, written)


class MessageStream:
    """Takes the events of one stream in order."""

    def __init__(self) -> None:
        self._tool_indexes: dict[int, int] = {}
        """The number of each tool call, by that of its block."""
        self._usage: Fields = {}
        self._stop_reason: str | None = None
        self._readers: Mapping[str, Callable[[Fields], ProviderChunk | None]] = {
            "content_block_delta": self._read_delta,
            "content_block_start": self._begin_block,
            "message_start": self._begin,
            "message_delta": self._note_end,
            "message_stop": self._end,
            "error": self._fail,
        }

    def read(self, event: bytes) -> ProviderChunk | None:
        """None where there is nothing in it for us.

        Raises:
            LLMError: the error that the event tells of.
            LLMBrokenAnswerError: it is not what the dialect promises.
        """
        fields = require_fields(parse_json(event))
        read = self._readers.get(str(fields.get("type")))
        if read is None and fields.get("error"):  # a gateway's own, which leaves out the type
            read = self._fail
        return None if read is None else read(fields)

    def _begin(self, event: Fields) -> ProviderChunk | None:
        message = find_fields(event, "message") or {}
        self._usage |= find_fields(message, "usage") or {}
        model = find_text(message, "model")
        return None if model is None else ProviderChunk(model=model)

    def _begin_block(self, event: Fields) -> ProviderChunk | None:
        block = find_fields(event, "content_block") or {}
        if block.get("type") == "tool_use":
            index = self._tool_indexes.setdefault(find_index(event, "index") or 0, len(self._tool_indexes))
            start = ToolCallDelta(index, find_text(block, "id") or f"call_{index}", find_text(block, "name"))
            return ProviderChunk(tool_calls=(start,))
        text = find_text(block, "text") if block.get("type") == "text" else None
        return ProviderChunk(text) if text else None

    def _read_delta(self, event: Fields) -> ProviderChunk | None:
        delta = find_fields(event, "delta") or {}
        text = find_text(delta, "text")
        if text:
            return ProviderChunk(text)
        if find_text(delta, "thinking"):
            return ProviderChunk(is_thinking=True)
        arguments = find_text(delta, "partial_json")
        index = self._tool_indexes.get(find_index(event, "index") or 0)
        if not arguments or index is None:
            return None
        return ProviderChunk(tool_calls=(ToolCallDelta(index, arguments=arguments),))

    def _note_end(self, event: Fields) -> None:
        """Counts are running totals; those that are not told again are null or absent."""
        self._stop_reason = find_text(find_fields(event, "delta") or {}, "stop_reason") or self._stop_reason
        counts = find_fields(event, "usage") or {}
        self._usage |= {key: value for key, value in counts.items() if value is not None}

    def _end(self, _: Fields) -> ProviderChunk:
        return ProviderChunk(finish_reason=_read_finish_reason(self._stop_reason), usage=read_usage(self._usage))

    def _fail(self, event: Fields) -> ProviderChunk | None:
        raise map_error(HttpAnswer(200, {}, event), datetime.now(UTC))


def _read_tool_call(block: Fields) -> ToolCall:
    name = find_text(block, "name")
    if not name:
        raise LLMBrokenAnswerError("the answer has a tool call without a name")
    return ToolCall(find_text(block, "id") or name, name, json.dumps(block.get("input") or {}))


def _read_finish_reason(stop_reason: str | None) -> FinishReason:
    finish_reason = _FINISH_REASONS.get(stop_reason or "")
    if finish_reason is None:
        raise LLMBrokenAnswerError("the answer has no known stop_reason")
    return finish_reason
