"""A purse in this process pays for requests, be they answered by a pool here or behind HTTP: one suite over both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from decimal import Decimal

import pytest

from llm_pool.asking.asking import AskablePool
from llm_pool.call import RunConfig
from llm_pool.catalog import ModelGroup, Price
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.pool import Pool
from llm_pool.remote.remote import RemotePool
from llm_pool.service import create_app
from llm_pool.tokens.counting import TokenCounter
from llm_pool.types import CompletionResponse
from shared.errors import (
    LLMBudgetExceededError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMStreamBrokenError,
    LLMUnavailableError,
    NotFoundError,
)
from tests.fakes.provider_server import OPENAI, Behaviour, hang_up, never_answer, send_json, serve
from tests.fakes.scripted_provider import Script, ask, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app

PRICE = Price(Decimal(1_000_000), Decimal(1_000_000))
"""A dollar for each token."""
DEPLOYMENT = deploy("a", price=PRICE)
CATALOG = build_catalog(ModelGroup("fast", (DEPLOYMENT,), retries=0))
BRIEF = replace(ask("fast"), max_tokens=2)
BOUND = Decimal(TokenCounter().estimate(BRIEF).bound(DEPLOYMENT))
"""What it may cost at most."""


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(params=["local", "remote"])
async def pool(request: pytest.FixtureRequest, script: Script) -> AsyncIterator[AskablePool]:
    local = Pool(CATALOG, registry=build_registry({"a": script}))
    async with AsyncExitStack() as stack:
        if request.param == "local":
            stack.push_async_callback(local.aclose)
            yield local
        else:
            url = await stack.enter_async_context(serve_app(create_app(CATALOG, local)))
            remote = RemotePool(url)
            stack.push_async_callback(remote.aclose)
            yield remote


async def test_a_purse_is_charged_for_what_was_answered(pool: AskablePool) -> None:
    tracker = BudgetTracker(10_000)
    config = RunConfig(budget_tracker=tracker)
    response = await pool.complete(ask("fast"), config)
    assert response.cost_usd == 5
    assert (tracker.spent, tracker.remaining()) == (5, 9_995)
    [chunk async for chunk in pool.stream(ask("fast"), config)]
    assert tracker.spent == 10


async def test_an_empty_purse_pays_for_nothing(pool: AskablePool, script: Script) -> None:
    tracker = BudgetTracker(0)
    with pytest.raises(LLMBudgetExceededError) as caught:
        await pool.complete(ask("fast"), RunConfig(budget_tracker=tracker))
    assert (caught.value.account, caught.value.limit_usd) == ("call", 0)
    assert script.asked == []


async def test_a_purse_is_not_overdrawn_by_requests_at_once(pool: AskablePool, script: Script) -> None:
    tracker = BudgetTracker(100)
    config = RunConfig(budget_tracker=tracker)
    asking = (pool.complete(replace(ask("fast"), max_tokens=2), config) for _ in range(40))
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert tracker.spent <= 100
    assert {type(answer) for answer in answers} == {CompletionResponse, LLMBudgetExceededError}
    assert tracker.remaining() == 100 - tracker.spent


async def test_a_stream_that_is_left_may_have_cost_all_that_was_held(pool: AskablePool, script: Script) -> None:
    """A service is given all that is left of the purse to hold, here just enough for the one request."""
    script.streams, script.hangs = [["fi"]], True
    tracker = BudgetTracker(BOUND)
    async with aclosing(pool.stream(BRIEF, RunConfig(budget_tracker=tracker))) as chunks:
        await anext(chunks)
    assert (tracker.spent, tracker.remaining()) == (BOUND, 0)


async def test_a_stream_that_is_cancelled_likewise(pool: AskablePool, script: Script) -> None:
    script.streams, script.hangs = [["fi"]], True
    tracker = BudgetTracker(BOUND)
    reading = asyncio.create_task(read(pool, tracker))
    await script.started.wait()
    await asyncio.sleep(0.05)  # the piece gets to whoever reads
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert (tracker.spent, tracker.remaining()) == (BOUND, 0)


async def test_a_stream_that_breaks_is_charged_at_its_own_bound(pool: AskablePool, script: Script) -> None:
    script.streams = [["fi", LLMOverloadedError("down")]]
    tracker = BudgetTracker(10_000)
    with pytest.raises(LLMStreamBrokenError):
        await read(pool, tracker)
    assert (tracker.spent, tracker.remaining()) == (BOUND, 10_000 - BOUND)


@pytest.mark.parametrize("error", [LLMOverloadedError("down"), LLMInvalidRequestError("bad")])
async def test_a_refusal_costs_nothing(pool: AskablePool, script: Script, error: LLMError) -> None:
    script.steps, script.streams = [error], [[error]]
    tracker = BudgetTracker(10_000)
    with pytest.raises((LLMUnavailableError, LLMInvalidRequestError)):
        await pool.complete(BRIEF, RunConfig(budget_tracker=tracker))
    with pytest.raises((LLMUnavailableError, LLMInvalidRequestError)):
        await read(pool, tracker)
    with pytest.raises(NotFoundError):
        await pool.complete(ask("nowhere"), RunConfig(budget_tracker=tracker))
    assert (tracker.spent, tracker.remaining()) == (0, 10_000)


@pytest.mark.parametrize(
    "behave",
    [never_answer, hang_up, send_json({"error": "gone"}, 502), send_json({"fine": True})],
    ids=["out of time", "hung up", "a gateway's own", "a stranger"],
)
async def test_what_got_lost_on_its_way_may_have_cost_all_that_was_held(
    behave: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_pool.remote.remote.GRACE_SECONDS", 0.1)
    async with serve(OPENAI) as server:
        server.behave = behave
        tracker, remote = BudgetTracker(7), RemotePool(server.base_url)
        with pytest.raises(LLMError):
            await remote.complete(ask("fast", timeout_seconds=0.1), RunConfig(budget_tracker=tracker))
        await remote.aclose()
    assert (tracker.spent, tracker.remaining()) == (7, 0)


async def test_what_was_never_sent_cost_nothing() -> None:
    tracker, remote = BudgetTracker(7), RemotePool("http://127.0.0.1:1")
    with pytest.raises(LLMUnavailableError):
        await remote.complete(ask("fast"), RunConfig(budget_tracker=tracker))
    with pytest.raises(LLMUnavailableError):
        await read(remote, tracker)
    await remote.aclose()
    assert (tracker.spent, tracker.remaining()) == (0, 7)


async def read(pool: AskablePool, tracker: BudgetTracker) -> None:
    async for _ in pool.stream(BRIEF, RunConfig(budget_tracker=tracker)):
        pass
