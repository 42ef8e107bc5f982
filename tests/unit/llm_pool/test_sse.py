"""Server-sent events, however their bytes are cut."""

import pytest

from llm_pool.providers.sse import EventReader
from shared.errors import LLMBrokenAnswerError


def read(*pieces: bytes) -> list[bytes]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)] + reader.finish()


STREAMS = {
    "plain": b'data: {"a": "\xc3\xa9"}\n\ndata: [DONE]\n\n',
    "CRLF": b'data: {"a": "\xc3\xa9"}\r\n\r\ndata: [DONE]\r\n\r\n',
    "CR": b'data: {"a": "\xc3\xa9"}\r\rdata: [DONE]\r\r',
    "mixed ends of lines": b'data: {"a": "\xc3\xa9"}\r\n\ndata: [DONE]\n\r\n',
    "no space": b'data:{"a": "\xc3\xa9"}\n\ndata:[DONE]\n\n',
    "names and numbers": b'event: x\nid: 1\nretry: 5\ndata: {"a": "\xc3\xa9"}\n\ndata: [DONE]\n\n',
    "comments": b': OPENROUTER PROCESSING\n\ndata: {"a": "\xc3\xa9"}\n:\n\n: keepalive 1/2\n\ndata: [DONE]\n\n',
    "byte order mark": b'\xef\xbb\xbfdata: {"a": "\xc3\xa9"}\n\ndata: [DONE]\n\n',
    "more blank lines": b'\n\n\ndata: {"a": "\xc3\xa9"}\n\n\n\ndata: [DONE]\n\n\n',
    "no last blank line": b'data: {"a": "\xc3\xa9"}\n\ndata: [DONE]\n',
    "no last end of line": b'data: {"a": "\xc3\xa9"}\n\ndata: [DONE]',
    "empty data": b'data:\n\ndata: {"a": "\xc3\xa9"}\n\ndata: \n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_any_cut_gives_the_same_events(stream: bytes) -> None:
    expected = [b'{"a": "\xc3\xa9"}', b"[DONE]"]
    assert read(stream) == expected
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == expected
    for at in range(len(stream)):
        assert read(stream[:at], stream[at:]) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_data_in_several_lines_is_one_event(end: bytes) -> None:
    stream = end.join([b"data: a", b"data:", b"data: b", b"", b""])
    for at in range(len(stream)):
        assert read(stream[:at], stream[at:]) == [b"a\n\nb"]


def test_an_end_of_line_inside_the_data_of_another_standard_is_none() -> None:
    assert read('data: "a\u2028b\x0bc\x85"\n\n'.encode()) == ['"a\u2028b\x0bc\x85"'.encode()]


@pytest.mark.parametrize("line", [b"data", b"datax: 1", b" data: 1", b'{"error": "no event"}', b"\xff\xfe"])
def test_what_is_no_data_is_skipped(line: bytes) -> None:
    assert read(line + b"\n\ndata: 1\n\n") == [b"1"]


@pytest.mark.parametrize("piece", [b"x" * 40, b"data: " + b"x" * 20 + b"\n"])
def test_an_event_without_end_is_not_held_for_ever(piece: bytes) -> None:
    reader = EventReader(largest_event_bytes=100)
    with pytest.raises(LLMBrokenAnswerError, match="too large"):
        list(map(reader.feed, [piece] * 6))


def test_many_events_may_be_larger_together() -> None:
    reader = EventReader(largest_event_bytes=100)
    assert sum(len(reader.feed(b"data: " + b"x" * 80 + b"\n\n")) for _ in range(10)) == 10
