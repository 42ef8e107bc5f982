"""A purse in this process pays for requests, be they answered by a pool here or behind HTTP: one suite over both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
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
from llm_pool.types import CompletionResponse
from shared.errors import LLMBudgetExceededError
from tests.fakes.scripted_provider import Script, ask, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app

PRICE = Price(Decimal(1_000_000), Decimal(1_000_000))
"""A dollar for each token."""


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(params=["local", "remote"])
async def pool(request: pytest.FixtureRequest, script: Script) -> AsyncIterator[AskablePool]:
    catalog = build_catalog(ModelGroup("fast", (deploy("a", price=PRICE),), retries=0))
    local = Pool(catalog, registry=build_registry({"a": script}))
    async with AsyncExitStack() as stack:
        if request.param == "local":
            stack.push_async_callback(local.aclose)
            yield local
        else:
            url = await stack.enter_async_context(serve_app(create_app(catalog, local)))
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
