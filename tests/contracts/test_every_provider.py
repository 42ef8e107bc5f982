"""What every provider does, HTTP or not: the contract of docs/writing-a-provider.md, which names these tests.

How a dialect's end marker and its errors are read has suites of its own, `test_providers` and `test_streams`.
"""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from llm_pool.asks import ask_stream, ask_whole
from llm_pool.catalog import Deployment
from llm_pool.types import (
    Capability,
    ChatMessage,
    CompletionRequest,
    EmbeddingRequest,
    JsonFormat,
    ProviderAnswer,
    StreamChunk,
)
from shared import errors
from tests.fakes.benches import ANSWER, BENCHES, PAGE, Bench, Mode

SHAPE = {"type": "object", "properties": {"zebras": {"type": "integer"}}, "required": ["zebras"]}
RUN_FOREIGN_CODE = {"sync"}
VECTORS_ELSEWHERE = {"openai_compatible": "test_openai_vectors"}

Opened = Callable[[Mode], AbstractAsyncContextManager[Bench]]


@pytest.fixture(params=BENCHES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def opened(kind: str, tmp_path: Path) -> Opened:
    return lambda mode: BENCHES[kind](tmp_path, mode)


def ask(text: str = "hello") -> CompletionRequest:
    return CompletionRequest("fast", (ChatMessage("user", text),))


async def stream(bench: Bench) -> tuple[ProviderAnswer, str]:
    pieces: list[StreamChunk] = []
    answer = await ask_stream(ask(), pieces.append, bench.provider, Deployment("one", "any", "m"), 10.0)
    return answer, "".join(piece.delta for piece in pieces)


async def test_an_answer(opened: Opened) -> None:
    async with opened("answer") as bench:
        answer = await bench.provider.complete(ask(), 10)
    assert answer.content.strip() in {ANSWER, "said: hello", "[mock answer] hello"}
    assert answer.finish_reason == "stop"
    assert answer.model


async def test_usage_is_told_or_none(opened: Opened) -> None:
    async with opened("answer") as bench:
        usage = (await bench.provider.complete(ask(), 10)).usage
    assert usage is None or usage.total_tokens > 0


async def test_the_time_allowed_bounds_an_answer(opened: Opened) -> None:
    async with opened("hang") as bench:
        started = time.monotonic()
        with pytest.raises(errors.LLMTimeoutError):
            await bench.provider.complete(ask(), 0.3)
        assert time.monotonic() - started < 1.5


async def test_cancelling_is_felt_at_once(opened: Opened) -> None:
    async with opened("hang") as bench:
        task = asyncio.create_task(bench.provider.complete(ask(), 60))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1.0


async def test_a_failure_is_an_error_of_the_tree(opened: Opened) -> None:
    async with opened("fail") as bench:
        with pytest.raises(errors.LLMTransientError) as caught:
            await bench.provider.complete(ask(), 10)
    assert str(caught.value)


async def test_a_call_asks_once(opened: Opened) -> None:
    async with opened("fail") as bench:
        with pytest.raises(errors.LLMError):
            await bench.provider.complete(ask(), 10)
        assert bench.count_asked() <= 1


async def test_many_calls_at_once_are_not_mixed_up(opened: Opened) -> None:
    async with opened("answer") as bench:
        texts = [f"call {n}" for n in range(20)]
        answers = await asyncio.gather(*(bench.provider.complete(ask(text), 30) for text in texts))
    said = [answer.content for answer in answers]
    assert said == [f"said: {text}" for text in texts] if bench.echoes else len(said) == len(texts)


async def test_what_it_cannot_do_is_refused_by_name(opened: Opened) -> None:
    async with opened("answer") as bench:
        provider = bench.provider
        assert "chat" in provider.capabilities
        if "stream" not in provider.capabilities:
            with pytest.raises(errors.LLMUnsupportedError, match="group 'fast'"):
                await anext(provider.stream(ask()))
        if "embed" not in provider.capabilities:
            with pytest.raises(errors.LLMUnsupportedError, match="openai or ollama"):
                await provider.embed(EmbeddingRequest("fast", ("x",)), 5)
        if "count_tokens" not in provider.capabilities:
            with pytest.raises(errors.LLMUnsupportedError, match="estimated"):
                await provider.count_tokens(ask(), 5)


@pytest.mark.parametrize("supports", [None, ("chat", "stream")])
async def test_json_is_never_wanted_in_vain(opened: Opened, supports: tuple[Capability, ...] | None) -> None:
    """Whoever answers is told the shape, in the provider's own way or in words."""
    request = replace(ask(), json_format=JsonFormat(SHAPE))
    deployment = Deployment("one", "any", "m", supports=supports)
    async with opened("answer") as bench:
        await ask_whole(request, bench.provider, deployment, 10.0)
        if bench.nobody_behind:
            pytest.skip("nobody stands behind it")
        (asked,) = bench.list_asked()
    assert str(asked).count("zebras") == str(SHAPE).count("zebras")


async def test_whether_it_runs_foreign_code_is_declared(kind: str, opened: Opened) -> None:
    async with opened("answer") as bench:
        assert bench.provider.runs_foreign_code is (kind in RUN_FOREIGN_CODE)


async def test_a_stream_is_the_whole_answer_in_pieces(opened: Opened) -> None:
    async with opened("answer") as bench:
        if "stream" not in bench.provider.capabilities:
            pytest.skip("it has no streams")
        answer, told = await stream(bench)
        whole = await bench.provider.complete(ask(), 10)
    assert told == answer.content
    assert (answer.content.strip(), answer.finish_reason) == (whole.content, whole.finish_reason)
    assert answer.usage == whole.usage


async def test_a_stream_may_be_closed_after_its_first_piece(opened: Opened) -> None:
    async with opened("answer") as bench:
        if "stream" not in bench.provider.capabilities:
            pytest.skip("it has no streams")
        async with aclosing(bench.provider.stream(ask())) as chunks:
            await anext(chunks)
        assert (await bench.provider.complete(ask(), 10)).content


async def test_vectors_are_one_for_each_input(kind: str, opened: Opened) -> None:
    if kind in VECTORS_ELSEWHERE:
        pytest.skip(f"asked in {VECTORS_ELSEWHERE[kind]}")
    async with opened("answer") as bench:
        if "embed" not in bench.provider.capabilities:
            pytest.skip("it has no embeddings")
        answer = await bench.provider.embed(EmbeddingRequest("fast", ("one", "another", "one"), dimensions=8), 10)
    assert [len(vector) for vector in answer.vectors] == [8, 8, 8]
    assert answer.vectors[0] == answer.vectors[2] != answer.vectors[1]


@pytest.mark.parametrize("mode", ["answer", "hang", "fail"])
async def test_health_is_told_and_never_raised(opened: Opened, mode: Mode) -> None:
    async with opened(mode) as bench:
        told = await bench.provider.is_healthy(0.5)
    assert told is True or mode != "answer"


async def test_it_asks_nobody_before_its_first_call(opened: Opened) -> None:
    async with opened("fail") as bench:
        await bench.provider.aclose()
        assert bench.count_asked() == 0


def test_the_page_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    suites = [Path(__file__), *(Path(__file__).with_name(f"{name}.py") for name in ("test_providers", "test_streams"))]
    known = {name for suite in suites for name in re.findall(r"def (test_\w+)", suite.read_text(encoding="utf-8"))}
    assert named <= known
    ours = set(re.findall(r"def (test_\w+)", Path(__file__).read_text(encoding="utf-8")))
    assert ours - named <= {"test_an_answer", "test_the_page_names_tests_that_exist"}
