"""Whole streams, and those that are none."""

from decimal import Decimal

import pytest

from llm_pool.stream_assembler import StreamAssembler
from llm_pool.types import ProviderAnswer, ProviderChunk, StreamChunk, ToolCall, ToolCallDelta
from shared.attempts import QuotaReading, Usage
from shared.errors import LLMBrokenAnswerError, LLMContentBlockedError, LLMError

QUOTA = (QuotaReading("requests", "minute", 10, 9, None),)


def assemble(*chunks: ProviderChunk) -> StreamAssembler:
    assembler = StreamAssembler("model-as-configured")
    for chunk in chunks:
        assembler.add(chunk)
    return assembler


def test_pieces_make_a_whole_in_their_order() -> None:
    assembler = assemble(
        ProviderChunk(quota=QUOTA),
        ProviderChunk("fi", model="served"),
        ProviderChunk("ne"),
        ProviderChunk(finish_reason="stop"),
        ProviderChunk(usage=Usage(3, 2)),
    )
    assert assembler.is_whole
    assert assembler.finish() == ProviderAnswer("fine", "served", "stop", Usage(3, 2), (), QUOTA)


def test_tool_calls_are_put_together_by_their_number() -> None:
    assembler = assemble(
        ProviderChunk(tool_calls=(ToolCallDelta(1, "b", "two", "{"), ToolCallDelta(0, "a", "one", "{"))),
        ProviderChunk(tool_calls=(ToolCallDelta(0, arguments="}"),)),
        ProviderChunk(tool_calls=(ToolCallDelta(1, arguments="}"),), finish_reason="tool_calls"),
    )
    assert assembler.finish().tool_calls == (ToolCall("a", "one", "{}"), ToolCall("b", "two", "{}"))


def test_only_what_says_something_is_handed_on() -> None:
    assembler = StreamAssembler("m")
    assert assembler.add(ProviderChunk(model="served", usage=Usage(1, 1))) is None
    assert assembler.add(ProviderChunk("a")) == StreamChunk("a")
    assert assembler.add(ProviderChunk(finish_reason="stop")) is None


def test_what_cannot_be_stored_is_mended_in_texts_and_calls() -> None:
    assembler = StreamAssembler("m")
    piece = assembler.add(ProviderChunk("a\x00", (ToolCallDelta(0, "i\x00", "n\x00", "\ud800"),)))
    assert piece == StreamChunk("a\ufffd", (ToolCallDelta(0, "i\ufffd", "n\ufffd", "\ufffd"),))
    assert assembler.text == "a\ufffd"


def test_a_character_cut_in_two_is_handed_on_whole() -> None:
    assembler = StreamAssembler("m")
    pieces = [assembler.add(ProviderChunk(text)) for text in ("a\ud83d", "\ude00b\ud83d", "\ude00")]
    assert pieces == [StreamChunk("a"), StreamChunk("\U0001f600b"), StreamChunk("\U0001f600")]
    assert assembler.text == "a\U0001f600b\U0001f600"


def test_half_a_character_alone_is_nothing_to_hand_on_yet() -> None:
    assembler = StreamAssembler("m")
    assert assembler.add(ProviderChunk("\ud83d")) is None
    assert not assembler.has_begun
    assert assembler.add(ProviderChunk()) is None
    assert assembler.add(ProviderChunk("\ude00")) == StreamChunk("\U0001f600")


@pytest.mark.parametrize(
    ("texts", "mended"),
    [
        (["a\ud83d", "b"], "a\ufffdb"),
        (["a\ud83d", ""], "a\ufffd"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd\U0001f600"),
        (["\ude00", "\ud83d"], "\ufffd\ufffd"),
    ],
)
def test_half_a_character_whose_other_half_never_comes_is_mended(texts: list[str], mended: str) -> None:
    assembler = assemble(*map(ProviderChunk, texts), ProviderChunk(finish_reason="stop"))
    assert assembler.finish().content == mended


def test_what_a_provider_says_of_cost_and_calls_is_kept() -> None:
    assembler = assemble(
        ProviderChunk("fine", (ToolCallDelta(0, "a", "one", "{}", "signed"),), cost_usd=Decimal(0)),
        ProviderChunk(tool_calls=(ToolCallDelta(0, arguments=""),), finish_reason="tool_calls"),
    )
    answer = assembler.finish()
    assert (answer.cost_usd, answer.tool_calls) == (Decimal(0), (ToolCall("a", "one", "{}", "signed"),))


@pytest.mark.parametrize(
    ("chunks", "fault"),
    [
        ([], LLMBrokenAnswerError),
        ([ProviderChunk()], LLMBrokenAnswerError),
        ([ProviderChunk("fi")], LLMBrokenAnswerError),
        ([ProviderChunk(tool_calls=(ToolCallDelta(0, "a", "one"),))], LLMBrokenAnswerError),
        ([ProviderChunk("fi"), ProviderChunk(usage=Usage(1, 1))], LLMBrokenAnswerError),
        ([ProviderChunk(finish_reason="stop")], LLMBrokenAnswerError),
        ([ProviderChunk(finish_reason="tool_calls")], LLMBrokenAnswerError),
        ([ProviderChunk(finish_reason="content_filter")], LLMContentBlockedError),
    ],
    ids=["nothing", "empty", "cut off", "cut off call", "only counted", "only ended", "no call", "blocked"],
)
def test_what_is_no_answer(chunks: list[ProviderChunk], fault: type[LLMError]) -> None:
    assembler = assemble(*chunks)
    assert not assembler.is_whole
    with pytest.raises(fault):
        assembler.finish()


def test_a_bound_used_up_before_the_first_word_is_an_answer() -> None:
    assert assemble(ProviderChunk(finish_reason="length")).finish().finish_reason == "length"
