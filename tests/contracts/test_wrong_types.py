"""Answers with one thing wrong in them, wherever it stands: they are read, or fail as a broken answer does."""

import json
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from llm_pool.types import ProviderAnswer
from shared import errors
from shared.text import find_fault
from tests.contracts.served import ask, opened, read
from tests.fakes.dialects import Dialect
from tests.fakes.provider_server import send_bytes, send_json, send_stream

WRONG = (None, 7, -1, 1.5, "text", True, [], [7], {}, {"a": 1}, "\ud83d", 10**30)
EXPECTED = {"answered", "LLMBrokenAnswerError", "LLMContentBlockedError", "LLMOverloadedError"}
"""The last two where the wrong thing reads as a refusal or as an error."""


def spoil(document: Any) -> Iterator[Any]:
    """The same with one value left out or replaced."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield {name: kept for name, kept in document.items() if name != key}
            yield from ({**document, key: changed} for changed in (*WRONG, *spoil(value)))
    elif isinstance(document, list):
        for at, value in enumerate(document):
            yield from ([*document[:at], changed, *document[at + 1 :]] for changed in (*WRONG, *spoil(value)))


async def name_outcome(asking: Awaitable[ProviderAnswer]) -> str:
    try:
        answer = await asking
    except errors.LLMStreamBrokenError as error:
        return type(error.__cause__).__name__
    except errors.LLMError as error:
        return type(error).__name__
    return "answered" if find_fault(f"{answer.content}{answer.model}") is None else "cannot be stored"


def spoil_event(event: bytes) -> Iterator[bytes]:
    start, end = event.index(b"{"), event.rindex(b"}") + 1
    for document in spoil(json.loads(event[start:end])):
        yield event[:start] + json.dumps(document).encode() + event[end:]


async def test_a_whole_answer_with_one_thing_wrong(dialect: Dialect) -> None:
    outcomes = set()
    async with opened(dialect) as (provider, server):
        for document in spoil(dialect.answer("fine", dialect.stopped)):
            server.behave = send_bytes(json.dumps(document).encode())
            outcomes.add(await name_outcome(ask(provider)))
    assert {"answered", "LLMBrokenAnswerError"} <= outcomes <= EXPECTED


async def test_a_stream_with_one_thing_wrong(dialect: Dialect) -> None:
    whole = dialect.stream("fi", "ne")
    outcomes = set()
    async with opened(dialect) as (provider, server):
        for at, event in enumerate(whole):
            for spoilt in spoil_event(event) if b"{" in event else ():
                server.behave = send_stream(dialect, [*whole[:at], spoilt, *whole[at + 1 :]])
                outcomes.add(await name_outcome(read(provider)))
    assert {"answered", "LLMBrokenAnswerError"} <= outcomes <= EXPECTED


@pytest.mark.parametrize("status", [400, 429, 500, 529])
async def test_an_error_with_one_thing_wrong(dialect: Dialect, status: int) -> None:
    async with opened(dialect) as (provider, server):
        for document in (*WRONG, *spoil(dialect.error("as people read it"))):
            server.behave = send_json(document, status)
            with pytest.raises(errors.LLMError) as caught:
                await ask(provider)
            assert str(caught.value).encode()
