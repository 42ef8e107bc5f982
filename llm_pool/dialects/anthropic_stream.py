"""Pieces of an answer, as Anthropic streams them: blocks of text and of tool calls, one after another."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_pool.dialects.anthropic_answers import STOP_REASONS, build_head, build_usage, describe_error
from llm_pool.dialects.bodies import write_provider_data
from llm_pool.types import CompletionResponse, StreamChunk, ToolCallDelta
from shared.errors import LLMError


class MessageStream:
    """Server-sent events of one answer; `message_stop` ends those that came whole."""

    media_type = "text/event-stream"

    def __init__(self, message_id: str, model: str) -> None:
        """`model` is the name that was asked for: who answers is known at the end only."""
        self._head = build_head(message_id, model)
        self._blocks = 0
        self._open: str | int | None = None
        """What the open block holds: `text`, or the tool call of that index."""
        self._block_by_call: dict[int, int] = {}

    def open(self) -> Iterable[bytes]:
        return (_event("message_start", message=self._head),)

    def write(self, chunk: StreamChunk) -> Iterator[bytes]:
        if chunk.response is not None:
            yield from self._close(chunk.response)
            return
        if chunk.delta:
            yield from self._enter("text", {"type": "text", "text": ""})
            yield self._write_delta(self._blocks - 1, {"type": "text_delta", "text": chunk.delta})
        for piece in chunk.tool_calls:
            yield from self._write_call(piece)

    def write_error(self, error: LLMError) -> Iterable[bytes]:
        return (_encode("error", describe_error(error)),)

    def _write_call(self, piece: ToolCallDelta) -> Iterator[bytes]:
        """A late piece of an earlier call still names its own block."""
        if piece.index not in self._block_by_call:
            block = {"type": "tool_use", "id": piece.id or "", "name": piece.name or "", "input": {}}
            yield from self._enter(piece.index, {**block, **write_provider_data(piece)})
            self._block_by_call[piece.index] = self._blocks - 1
        if piece.arguments:
            delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            yield self._write_delta(self._block_by_call[piece.index], delta)

    def _enter(self, content: str | int, block: Mapping[str, object]) -> Iterator[bytes]:
        if self._open == content:
            return
        yield from self._leave()
        self._open = content
        yield _event("content_block_start", index=self._blocks, content_block=block)
        self._blocks += 1

    def _leave(self) -> Iterator[bytes]:
        if self._open is not None:
            yield _event("content_block_stop", index=self._blocks - 1)
        self._open = None

    def _close(self, response: CompletionResponse) -> Iterator[bytes]:
        yield from self._leave()
        delta = {"stop_reason": STOP_REASONS[response.finish_reason], "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage=build_usage(response.usage))
        yield _event("message_stop")

    def _write_delta(self, index: int, delta: Mapping[str, object]) -> bytes:
        return _event("content_block_delta", index=index, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return _encode(kind, {"type": kind, **fields})


def _encode(kind: str, document: Mapping[str, object]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(document, separators=(',', ':'))}\n\n".encode()
