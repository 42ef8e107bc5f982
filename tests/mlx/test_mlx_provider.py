"""MLX in this process, with the tiny random model: real loading, real tokens, one thread."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from llm_pool.asks import ask_stream
from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.providers.mlx import MlxProvider, create_mlx
from llm_pool.types import ChatMessage, CompletionRequest, StreamChunk
from shared import errors
from tests.mlx.conftest import MAKE_TINY_MODEL, skip_without_mlx

pytestmark = pytest.mark.mlx

QUESTION = "How many legs have three cats?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_mlx()
    directory = tmp_path_factory.mktemp("mlx-in-process") / "model"
    subprocess.run([sys.executable, MAKE_TINY_MODEL, directory], check=True)
    return directory


def deploy(model: Path | str, **options: object) -> Deployment:
    return Deployment("tiny", "mlx", str(model), options=options, default_max_tokens=12)


@pytest.fixture
async def provider(model: Path) -> AsyncIterator[MlxProvider]:
    provider = create_mlx(deploy(model), Connections())
    yield provider
    await provider.aclose()


def ask(text: str = QUESTION, **fields: object) -> CompletionRequest:
    return CompletionRequest("fast", (ChatMessage("user", text),), **fields)


async def test_an_answer_with_its_usage(provider: MlxProvider, model: Path) -> None:
    answer = await provider.complete(ask(max_tokens=8), 60)
    assert answer.model == str(model)
    assert answer.finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == await provider.count_tokens(ask(), 60) > len(QUESTION)
    assert 1 <= answer.usage.completion_tokens <= 8


async def test_an_answer_without_a_bound_takes_the_deployments(provider: MlxProvider) -> None:
    answer = await provider.complete(ask(temperature=0.0), 60)
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12


async def test_without_temperature_the_same_is_said_twice_and_streamed(provider: MlxProvider, model: Path) -> None:
    request = ask(temperature=0.0, max_tokens=20)
    pieces: list[StreamChunk] = []
    streamed = await ask_stream(request, pieces.append, provider, deploy(model), 60)
    assert len(pieces) > 2
    assert streamed == await provider.complete(request, 60)


async def test_an_answer_ends_before_a_stop_text(provider: MlxProvider) -> None:
    whole = (await provider.complete(ask(temperature=0.0, max_tokens=40), 60)).content
    stop = whole[10:13]
    cut = await provider.complete(ask(temperature=0.0, max_tokens=40, stop=(stop,)), 60)
    assert cut.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


async def test_calls_are_answered_one_after_another(provider: MlxProvider) -> None:
    answers = await asyncio.gather(*(provider.complete(ask(temperature=0.0, max_tokens=10), 60) for _ in range(5)))
    assert len({answer.content for answer in answers}) == 1
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("mlx-tiny")]) >= 1


async def test_the_loop_goes_on_while_the_model_thinks(provider: MlxProvider) -> None:
    await provider.complete(ask(max_tokens=1), 60)
    task = asyncio.create_task(provider.complete(ask(temperature=0.0, max_tokens=300), 60))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks > 10


async def test_a_timeout_stops_the_model(provider: MlxProvider) -> None:
    await provider.complete(ask(max_tokens=1), 60)
    with pytest.raises(errors.LLMTimeoutError):
        await provider.complete(ask(temperature=0.0, max_tokens=3500), 0.2)
    started = time.monotonic()
    await provider.complete(ask(max_tokens=1), 60)
    assert time.monotonic() - started < 1.5


async def test_closing_a_stream_stops_the_model(provider: MlxProvider) -> None:
    async with aclosing(provider.stream(ask(temperature=0.0, max_tokens=3500))) as chunks:
        await anext(chunks)
    started = time.monotonic()
    await provider.complete(ask(max_tokens=1), 60)
    assert time.monotonic() - started < 1.5


async def test_a_call_that_is_cancelled_in_the_queue_never_begins(provider: MlxProvider) -> None:
    async with aclosing(provider.stream(ask(temperature=0.0, max_tokens=3500))) as first:
        await anext(first)
        with pytest.raises(errors.LLMTimeoutError):
            await provider.complete(ask(temperature=0.0, max_tokens=3500), 0.1)
    started = time.monotonic()
    await provider.complete(ask(max_tokens=1), 60)
    assert time.monotonic() - started < 1.5


async def test_a_prompt_longer_than_the_model_was_made_for_is_refused(provider: MlxProvider) -> None:
    with pytest.raises(errors.LLMContextTooLongError, match="made for 4096"):
        await provider.complete(ask("x" * 5000), 60)


async def test_a_directory_without_a_model_is_no_model(tmp_path: Path) -> None:
    provider = create_mlx(deploy(tmp_path), Connections())
    with pytest.raises(errors.LLMModelNotFoundError, match="cannot load"):
        await provider.complete(ask(), 60)
    await provider.aclose()


async def test_it_is_healthy_while_its_directory_is_there(provider: MlxProvider, tmp_path: Path) -> None:
    assert await provider.is_healthy(1)
    assert not await create_mlx(deploy(tmp_path / "nowhere"), Connections()).is_healthy(1)
