"""What every pool does, in this process or behind HTTP: one suite over both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from llm_pool.call import CompletionPool
from llm_pool.catalog import ModelGroup
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.pool import Pool
from llm_pool.remote import RemotePool
from llm_pool.service import create_app
from shared.attempts import Usage
from shared.clock import SystemClock
from shared.errors import (
    InputError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMTimeoutError,
    LLMUnavailableError,
    NotFoundError,
)
from tests.fakes.scripted_provider import Script, ask, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app


@pytest.fixture
def scripts() -> dict[str, Script]:
    return {"a": Script(), "b": Script()}


@pytest.fixture(params=["local", "remote"])
async def pool(request: pytest.FixtureRequest, scripts: dict[str, Script]) -> AsyncIterator[CompletionPool]:
    catalog = build_catalog(
        ModelGroup("quality", (deploy("a"),), fallbacks=("fast",), retries=1), ModelGroup("fast", (deploy("b"),))
    )
    retry = Retry(SystemClock(), Backoff(draw=lambda low, _: low))
    local = Pool(catalog, retry=retry, registry=build_registry(scripts))
    async with AsyncExitStack() as stack:
        if request.param == "local":
            stack.push_async_callback(local.aclose)
            yield local
        else:
            url = await stack.enter_async_context(serve_app(create_app(catalog, local)))
            remote = RemotePool(url)
            stack.push_async_callback(remote.aclose)
            yield remote


async def test_an_answer_with_its_attempts(pool: CompletionPool, scripts: dict[str, Script]) -> None:
    scripts["a"].steps = [LLMOverloadedError("down")]
    scripts["b"].steps = ["fine ü 😀"]
    response = await pool.complete(ask("quality"))
    assert (response.content, response.provider, response.deployment) == ("fine ü 😀", "scripted", "b")
    assert (response.model, response.finish_reason, response.usage) == ("scripted-1", "stop", Usage(3, 2))
    assert [(attempt.deployment, attempt.error_type) for attempt in response.attempts] == [
        ("a", "LLMOverloadedError"),
        ("a", "LLMOverloadedError"),
        ("b", None),
    ]
    assert response.attempts[0].started_at.tzinfo is not None
    assert response.attempts[2].usage == Usage(3, 2)
    assert response.latency_seconds > 0


async def test_the_whole_request_reaches_the_provider(pool: CompletionPool, scripts: dict[str, Script]) -> None:
    request = replace(ask("quality", "one", "two ü"), temperature=0.5, max_tokens=7, timeout_seconds=9.0)
    await pool.complete(request)
    assert scripts["a"].asked == [request]
    assert scripts["a"].timeouts[0] == pytest.approx(9.0, abs=1)


async def test_nobody_answers(pool: CompletionPool, scripts: dict[str, Script]) -> None:
    scripts["a"].steps = [LLMRateLimitedError("full", retry_after_seconds=61.25)]
    scripts["b"].steps = [LLMOverloadedError("down")]
    with pytest.raises(LLMUnavailableError, match=r"^All providers unavailable$") as caught:
        await pool.complete(ask("quality"))
    assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMRateLimitedError"] + [
        "LLMOverloadedError"
    ] * 3
    assert caught.value.attempts[0].error_message == "full"
    assert caught.value.retry_after_seconds == 61.25


@pytest.mark.parametrize(
    "error", [LLMInvalidRequestError("bad ü"), LLMContextTooLongError("long"), LLMContentBlockedError("no")]
)
async def test_what_no_other_deployment_would_mend(
    pool: CompletionPool, scripts: dict[str, Script], error: LLMError
) -> None:
    scripts["a"].steps = [error]
    with pytest.raises(LLMError) as caught:
        await pool.complete(ask("quality"))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert [attempt.error_type for attempt in caught.value.attempts] == [type(error).__name__]


async def test_out_of_time(pool: CompletionPool, scripts: dict[str, Script]) -> None:
    scripts["a"].steps = [LLMTimeoutError("slow")]
    with pytest.raises(LLMTimeoutError) as caught:
        await pool.complete(ask("quality", timeout_seconds=1e-9))
    assert caught.value.parks


async def test_an_unknown_group(pool: CompletionPool) -> None:
    with pytest.raises(NotFoundError, match="quality, fast") as caught:
        await pool.complete(ask("best"))
    assert caught.value.field == "model"


@pytest.mark.parametrize("text", ["a\x00b", "half \ud83d"])
async def test_text_that_cannot_be_kept(pool: CompletionPool, text: str) -> None:
    with pytest.raises(InputError) as caught:
        await pool.complete(ask("fast", text))
    assert caught.value.field == "messages.0.content"


async def test_no_messages(pool: CompletionPool) -> None:
    with pytest.raises(InputError) as caught:
        await pool.complete(replace(ask(), messages=()))
    assert caught.value.field == "messages"


async def test_cancelling_reaches_the_provider(pool: CompletionPool, scripts: dict[str, Script]) -> None:
    scripts["a"].hangs = True
    task = asyncio.create_task(pool.complete(ask("quality")))
    await asyncio.wait_for(scripts["a"].started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(scripts["a"].cancelled.wait(), 1)


async def test_two_hundred_requests_at_once(pool: CompletionPool, scripts: dict[str, Script]) -> None:
    scripts["b"].hangs = True
    tasks = [asyncio.create_task(pool.complete(ask())) for _ in range(200)]
    async with asyncio.timeout(10):
        while len(scripts["b"].asked) < 200:
            scripts["b"].started.clear()
            await scripts["b"].started.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
