"""Bodies as they are sent and as they come: the quick writer and reader, and what only the slower ones take."""

import json
import math

import pytest

from llm_pool.providers.http import dump_json, parse_json


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "ä € 😀 \n \u2028"}], "temperature": 0.0, "stop": ["a", "b"]},
        {"a": None, "b": [True, False], "c": {"d": 10**30}, "e": ("f", 1.5)},
        {"half": "\ud83d"},
    ],
)
def test_what_is_sent_says_what_was_meant(body: dict[str, object]) -> None:
    assert json.loads(dump_json(body)) == json.loads(json.dumps(body))


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'{"a": [1, 2.5, null, "\\ud83d\\ude00"]}', {"a": [1, 2.5, None, "😀"]}),
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (b"\xef\xbb\xbf{}", {}),
        ("{}".encode("utf-16"), {}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"10000000000000000000000", 10**22),
    ],
)
def test_what_comes_is_read_as_before_the_quick_reader(body: bytes, document: object) -> None:
    assert parse_json(body) == document


def test_numbers_that_are_none_are_read() -> None:
    """Nobody keeps them: they are no count of tokens, and no text."""
    document = parse_json(b"[NaN, Infinity]")
    assert isinstance(document, list)
    assert math.isnan(document[0])
    assert math.isinf(document[1])


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": 1} and more', b"\xff\xfe\xff", b"[" * 100_000])
def test_what_is_no_json_is_nothing(body: bytes) -> None:
    assert parse_json(body) is None
