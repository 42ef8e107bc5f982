"""Puts the pieces of a stream together, and tells a whole answer from one that was cut off."""

from dataclasses import replace
from decimal import Decimal

from llm_pool.types import FinishReason, ProviderAnswer, ProviderChunk, StreamChunk, ToolCall, ToolCallDelta
from shared.attempts import QuotaReading, Usage
from shared.errors import LLMBrokenAnswerError, LLMContentBlockedError, LLMError
from shared.text import join_surrogates, make_storable

_FIRST_HALVES = ("\ud800", "\udbff")
"""Of a surrogate pair: who cuts a text in UTF-16 may leave one at the end of a piece."""


class StreamAssembler:
    """Takes a provider's chunks in order."""

    def __init__(self, model: str, *, may_be_silent: bool = False) -> None:
        """`model` names the answer where the stream does not; `may_be_silent` as for `find_silence`."""
        self._model = model
        self._may_be_silent = may_be_silent
        self._texts: list[str] = []
        self._half = ""
        """The last letter so far, of which the other half is still to come."""
        self._tool_calls: dict[int, ToolCall] = {}
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._cost_usd: Decimal | None = None
        self.quota: tuple[QuotaReading, ...] = ()
        """What the provider said of our quotas so far."""

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def has_begun(self) -> bool:
        """Something was said that cannot be taken back."""
        return bool(self._texts or self._tool_calls)

    @property
    def is_whole(self) -> bool:
        """The answer is complete, whatever may still be said about it."""
        return self._find_fault() is None

    def add(self, chunk: ProviderChunk) -> StreamChunk | None:
        """What of it is to be handed on, if anything."""
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self._usage = chunk.usage or self._usage
        self._cost_usd = self._cost_usd if chunk.cost_usd is None else chunk.cost_usd
        self._model = chunk.model or self._model
        self.quota = chunk.quota or self.quota
        text = self._take_text(chunk)
        if not (text or chunk.tool_calls):
            return None
        piece = StreamChunk(text, tuple(map(_make_storable_piece, chunk.tool_calls)))
        if piece.delta:
            self._texts.append(piece.delta)
        for tool_call in piece.tool_calls:
            self._extend_tool_call(tool_call)
        return piece

    def finish(self) -> ProviderAnswer:
        """
        Raises:
            LLMBrokenAnswerError: nothing came, or no terminal marker.
            LLMContentBlockedError: nothing came, as the provider withheld it.
        """
        fault = self._find_fault()
        if fault is not None or self._finish_reason is None:
            raise fault or LLMBrokenAnswerError("the stream was cut off")
        return ProviderAnswer(
            self.text,
            make_storable(self._model),
            self._finish_reason,
            self._usage,
            tuple(call for _, call in sorted(self._tool_calls.items())),
            self.quota,
            self._cost_usd,
        )

    def _find_fault(self) -> LLMError | None:
        if self._finish_reason is None:
            return LLMBrokenAnswerError("the stream was cut off" if self.has_begun else "the stream was empty")
        if self.has_begun:
            return None
        return find_silence(self._finish_reason, may_be_silent=self._may_be_silent)

    def _take_text(self, chunk: ProviderChunk) -> str:
        text = chunk.delta
        if self._half:
            text, self._half = join_surrogates(self._half + text), ""
        if text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1] and chunk.finish_reason is None:
            text, self._half = text[:-1], text[-1]
        return make_storable(text)

    def _extend_tool_call(self, piece: ToolCallDelta) -> None:
        known = self._tool_calls.get(piece.index, ToolCall("", "", ""))
        self._tool_calls[piece.index] = ToolCall(
            piece.id or known.id,
            piece.name or known.name,
            known.arguments + piece.arguments,
            piece.provider_data or known.provider_data,
        )


def find_silence(finish_reason: FinishReason, *, may_be_silent: bool) -> LLMError | None:
    """What is wrong with an answer without a word and without a tool call, be it whole or a stream.

    `may_be_silent` where the request gives a reason to end before the first word.
    """
    if finish_reason == "content_filter":
        return LLMContentBlockedError("the provider's filter or the model itself withheld the answer")
    # Whoever used up the bound before the first word, by thinking, has said all it could.
    if finish_reason == "length" or (finish_reason == "stop" and may_be_silent):
        return None
    return LLMBrokenAnswerError("the answer is empty")


def _make_storable_piece(piece: ToolCallDelta) -> ToolCallDelta:
    return replace(
        piece,
        id=piece.id and make_storable(piece.id),
        name=piece.name and make_storable(piece.name),
        arguments=make_storable(piece.arguments),
        provider_data=piece.provider_data and make_storable(piece.provider_data),
    )
