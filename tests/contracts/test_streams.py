"""Streams of every provider that speaks HTTP, against a real server: the whole ones, and each way to break off."""

import asyncio
import json
import time
from contextlib import aclosing

import pytest

from llm_pool.asks import AFTER_END_SECONDS
from llm_pool.providers.base import Provider
from llm_pool.types import ProviderAnswer, StreamChunk
from shared import errors
from shared.attempts import Usage
from tests.contracts.served import REQUEST, opened, read
from tests.fakes.dialects import Dialect
from tests.fakes.provider_server import (
    Behaviour,
    ProviderServer,
    hang_up,
    never_answer,
    reset,
    send_bytes,
    send_json,
    send_stream,
)


def begin(server: ProviderServer, *texts: str, then: Behaviour | None = None) -> Behaviour:
    """The beginning of a stream and no more."""
    return send_stream(server.dialect, server.dialect.pieces(texts), then=then)


async def break_off(provider: Provider, **seconds: float) -> errors.LLMStreamBrokenError:
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await read(provider, **seconds)
    return caught.value


async def test_the_pieces_come_in_order_and_make_the_whole(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_stream(server.dialect, server.dialect.stream("fi", "né", " 思", "!"))
    pieces: list[StreamChunk] = []
    answer = await read(provider, pieces)
    assert [piece.delta for piece in pieces] == ["fi", "né", " 思", "!"]
    assert answer == ProviderAnswer("finé 思!", "model-as-served", "stop", Usage(11, 5))
    assert server.received[0].body["stream"] is True


async def test_an_answer_cut_by_its_length_says_so(provider: Provider, server: ProviderServer) -> None:
    parts = server.dialect.stream("fi", finish_reason=server.dialect.cut_by_length)
    server.behave = send_stream(server.dialect, parts)
    assert (await read(provider)).finish_reason == "length"


@pytest.mark.parametrize("size", [1, 7])
async def test_it_does_not_matter_where_the_bytes_are_cut(
    provider: Provider, server: ProviderServer, size: int
) -> None:
    whole = b"".join(server.dialect.stream("né", "思考"))
    server.behave = send_stream(server.dialect, [whole[at : at + size] for at in range(0, len(whole), size)])
    assert (await read(provider)).content == "né思考"


async def test_a_stream_that_ends_in_the_middle_is_a_failure(provider: Provider, server: ProviderServer) -> None:
    server.behave = begin(server, "fi", "n")
    broken = await break_off(provider)
    assert broken.partial_text == "fin"
    assert type(broken.__cause__) is errors.LLMBrokenAnswerError
    assert not broken.falls_back


@pytest.mark.parametrize("body", [b"", b"\n\n", b"<html>Bad Gateway</html>"])
async def test_a_stream_with_nothing_in_it_falls_back(provider: Provider, server: ProviderServer, body: bytes) -> None:
    server.behave = send_bytes(body, content_type=server.dialect.stream_type)
    with pytest.raises(errors.LLMBrokenAnswerError) as caught:
        await read(provider)
    assert caught.value.falls_back


async def test_a_stream_that_ends_before_its_first_token_falls_back(provider: Provider, server: ProviderServer) -> None:
    server.behave = begin(server)
    with pytest.raises(errors.LLMBrokenAnswerError):
        await read(provider)


async def test_success_with_an_error_inside_falls_back(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_json(server.dialect.error("upstream is down"))
    with pytest.raises(errors.LLMError, match="upstream is down") as caught:
        await read(provider)
    assert caught.value.falls_back


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (401, errors.LLMAuthenticationError),
        (429, errors.LLMRateLimitedError),
        (503, errors.LLMOverloadedError),
        (529, errors.LLMOverloadedError),
    ],
)
async def test_an_error_status(
    provider: Provider, server: ProviderServer, status: int, error_class: type[errors.LLMError]
) -> None:
    server.behave = send_json(server.dialect.error("slow down"), status, {"Retry-After": "7"})
    with pytest.raises(error_class, match="slow down") as caught:
        await read(provider)
    assert caught.value.retry_after_seconds == 7


async def test_an_error_event_before_the_first_token_falls_back(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_stream(server.dialect, [server.dialect.event(server.dialect.overloaded)])
    with pytest.raises(errors.LLMError) as caught:
        await read(provider)
    assert caught.value.falls_back


async def test_an_error_event_in_the_middle_is_typed_by_its_own_type(
    provider: Provider, server: ProviderServer
) -> None:
    dialect = server.dialect
    server.behave = send_stream(dialect, [*dialect.pieces(["fi"]), dialect.event(dialect.overloaded)])
    broken = await break_off(provider)
    assert broken.partial_text == "fi"
    assert type(broken.__cause__) is errors.LLMOverloadedError
    assert "as people read it" in str(broken.__cause__)


@pytest.mark.parametrize("fault", [hang_up, reset], ids=["closed", "reset"])
async def test_a_connection_that_breaks_in_the_middle_is_typed(
    provider: Provider, server: ProviderServer, fault: Behaviour
) -> None:
    server.behave = begin(server, "fi", then=fault)
    broken = await break_off(provider)
    assert broken.partial_text == "fi"
    assert isinstance(broken.__cause__, errors.LLMBrokenAnswerError | errors.LLMConnectionError)


@pytest.mark.parametrize("fault", [hang_up, reset], ids=["closed", "reset"])
async def test_a_connection_that_breaks_before_the_first_token_falls_back(
    provider: Provider, server: ProviderServer, fault: Behaviour
) -> None:
    server.behave = fault
    with pytest.raises(errors.LLMConnectionError):
        await read(provider)


async def test_a_stream_that_does_not_begin_ends_by_our_bound(provider: Provider, server: ProviderServer) -> None:
    server.behave = begin(server, then=never_answer)
    started = time.monotonic()
    with pytest.raises(errors.LLMTimeoutError):
        await read(provider, first_seconds=0.2)
    assert 0.15 < time.monotonic() - started < 1.5
    await asyncio.wait_for(server.hung_up.wait(), 1)


async def test_a_stream_that_stands_still_ends_by_our_bound(provider: Provider, server: ProviderServer) -> None:
    server.behave = begin(server, "fi", then=never_answer)
    broken = await break_off(provider, next_seconds=0.2)
    assert type(broken.__cause__) is errors.LLMTimeoutError
    await asyncio.wait_for(server.hung_up.wait(), 1)


async def test_signs_of_life_without_a_word_do_not_count(provider: Provider, server: ProviderServer) -> None:
    alive = [server.dialect.keepalive] * 100
    server.behave = send_stream(server.dialect, alive, seconds_between=0.02)
    with pytest.raises(errors.LLMTimeoutError):
        await read(provider, first_seconds=0.2)


async def test_a_model_that_thinks_is_not_still(provider: Provider, server: ProviderServer) -> None:
    for thought in server.dialect.thoughts:
        events = [*[thought] * 14, *server.dialect.stream("fine")]
        server.behave = send_stream(server.dialect, events, seconds_between=0.05)
        pieces: list[StreamChunk] = []
        answer = await read(provider, pieces, first_seconds=0.5, next_seconds=0.5)
        assert (answer.content, [piece.delta for piece in pieces]) == ("fine", ["fine"])


async def test_who_thinks_and_then_stands_still_has_said_nothing(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_stream(server.dialect, server.dialect.thoughts, then=never_answer)
    with pytest.raises(errors.LLMTimeoutError, match=r"stood still for 0\.2 s"):
        await read(provider, first_seconds=5.0, next_seconds=0.2)


async def test_a_slow_drip_is_fine_while_every_piece_comes_in_time(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_stream(server.dialect, server.dialect.stream(*"abcdefgh"), seconds_between=0.04)
    answer = await read(provider, first_seconds=0.3, next_seconds=0.2)
    assert answer.content == "abcdefgh"


@pytest.mark.parametrize("texts", [(), ("fi",)], ids=["at once", "in the middle"])
async def test_an_event_that_is_no_json_is_a_broken_answer(
    provider: Provider, server: ProviderServer, texts: tuple[str, ...]
) -> None:
    bad = server.dialect.event({"a": "b"}).replace(b'"b"', b'"b')
    server.behave = send_stream(server.dialect, [*server.dialect.pieces(texts), bad])
    with pytest.raises(errors.LLMError) as caught:
        await read(provider)
    error = caught.value.__cause__ if texts else caught.value
    assert type(error) is errors.LLMBrokenAnswerError


async def test_an_event_of_the_wrong_shape_is_a_broken_answer(dialect: Dialect) -> None:
    for document in dialect.wrong_types:
        async with opened(dialect) as (provider, server):
            server.behave = send_stream(dialect, [dialect.event(document), *dialect.ending(dialect.stopped)])
            with pytest.raises(errors.LLMBrokenAnswerError):
                await read(provider)


async def test_a_whole_answer_to_who_wanted_a_stream_is_one_piece(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_json(server.dialect.answer("fine", server.dialect.stopped))
    pieces: list[StreamChunk] = []
    assert await read(provider, pieces) == ProviderAnswer("fine", "model-as-served", "stop", Usage(11, 5))
    assert [piece.delta for piece in pieces] == ["fine"]


async def test_who_never_hangs_up_after_the_end_has_answered(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_stream(server.dialect, server.dialect.stream("fine"), then=never_answer)
    started = time.monotonic()
    answer = await read(provider, next_seconds=30)
    assert (answer.content, answer.usage) == ("fine", Usage(11, 5))
    assert time.monotonic() - started < AFTER_END_SECONDS + 1


async def test_a_connection_that_breaks_behind_the_end_has_answered(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_stream(server.dialect, server.dialect.stream("fine"), then=reset)
    assert (await read(provider)).content == "fine"


async def test_closing_a_stream_closes_the_socket(provider: Provider, server: ProviderServer) -> None:
    server.behave = begin(server, "fi", then=never_answer)
    async with aclosing(provider.stream(REQUEST)) as chunks:
        while not (await anext(chunks)).delta:
            pass
    await asyncio.wait_for(server.hung_up.wait(), 1)


async def test_cancelling_who_reads_closes_the_socket(provider: Provider, server: ProviderServer) -> None:
    server.behave = begin(server, "fi", then=never_answer)
    reading = asyncio.create_task(read(provider))
    await asyncio.wait_for(server.asked.wait(), 5)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.wait_for(server.hung_up.wait(), 1)


async def test_two_hundred_streams_are_in_flight_at_once(provider: Provider, server: ProviderServer) -> None:
    all_there = asyncio.Event()

    async def wait_for_all(_):
        if server.in_flight == 200:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), 10)

    async def behave(request):
        await wait_for_all(request)
        return await send_stream(server.dialect, server.dialect.stream("fi", "ne"))(request)

    server.behave = behave
    answers = await asyncio.gather(*(read(provider, first_seconds=20) for _ in range(200)))
    assert {answer.content for answer in answers} == {"fine"}
    assert server.most_in_flight == 200


async def test_the_connection_of_a_stream_read_to_its_end_is_kept(provider: Provider, server: ProviderServer) -> None:
    for _ in range(3):
        await read(provider)
    assert len(server.connections) == 1


async def test_what_comes_in_one_write_is_the_same_stream(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_bytes(b"".join(server.dialect.stream("fi", "ne")), content_type=server.dialect.stream_type)
    assert (await read(provider)).content == "fine"


async def test_the_key_and_the_messages_are_sent(provider: Provider, server: ProviderServer) -> None:
    await read(provider)
    received = server.received[0]
    assert "secret" in str(received.headers)
    assert "be brief" in json.dumps(received.body)
