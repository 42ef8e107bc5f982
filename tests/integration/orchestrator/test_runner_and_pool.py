"""Jobs on a real ledger that ask a whole pool: what it cannot do now is parked until it said, and answered then."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest
from redis.asyncio import Redis

from llm_pool.catalog import Limits
from llm_pool.policies import BudgetPolicy
from llm_pool.pool import Pool
from orchestrator.failed_requests.replay import release_due
from orchestrator.jobs.deliveries import KnownJob, NewMessage
from orchestrator.outcomes import Outcome, Parked, Succeeded
from shared.database import Database
from tests.builders import build_message
from tests.fakes.provider_server import send_json
from tests.fakes.whole_pool import Yard, answer, first, open_yard, refuse
from tests.ledger import count
from tests.running import build_runner

A_MINUTE_LATER = "update failed_requests set next_try_at = next_try_at - $1::interval, updated_at = updated_at - $1"
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def yard(redis_url: str) -> AsyncIterator[Yard]:
    async with open_yard(redis_url) as opened:
        await opened.serve("a")
        # Until the price is known the bound of a request is unknown too: agents name no max_tokens.
        opened.fields = {"default_max_tokens": 5}
        yield opened


class Worker:
    """Takes messages and jobs, as a worker process does."""

    def __init__(self, database: Database, pool: Pool) -> None:
        self._database = database
        self._runner = build_runner(database, pool)

    async def take(self, task_id: str, model: str = "fast") -> Outcome:
        return await self._runner.handle(NewMessage(build_message(model=model), task_id))

    async def drain(self) -> list[Outcome]:
        released = await release_due(self._database)
        return [await self._runner.handle(KnownJob(job.tenant_id, job.job_id, job.task_id)) for job in released]


async def read_left(superuser: asyncpg.Connection) -> float:
    """Seconds until the parked job is tried again."""
    left = await superuser.fetchval("select next_try_at - now() from failed_requests where state = 'parked'")
    return float(left.total_seconds())


def midnight() -> datetime:
    return (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


async def forget_spending(redis_url: str) -> None:
    """As the next day finds it."""
    async with Redis.from_url(redis_url) as client:
        await client.delete(*await client.keys("llmyard:{budget}:*"))


async def test_a_job_that_no_money_is_left_for_waits_for_the_next_day(
    yard: Yard, database: Database, superuser: asyncpg.Connection, redis_url: str
) -> None:
    yard.policies = replace(yard.policies, budget=BudgetPolicy(tenant_daily_usd=Decimal("0.01")))
    worker = Worker(database, yard.open(yard.group("a")))
    assert isinstance(await worker.take("task-1"), Succeeded)
    refused = await worker.take("task-2")
    assert isinstance(refused, Parked)
    assert refused.error_type == "LLMBudgetExceededError"
    next_try_at = await superuser.fetchval("select next_try_at from failed_requests")
    assert abs(next_try_at - midnight()) < timedelta(seconds=5)
    await superuser.execute(A_MINUTE_LATER, MINUTE)
    assert await worker.drain() == []
    await superuser.execute(A_MINUTE_LATER, next_try_at - datetime.now(UTC))
    await forget_spending(redis_url)
    (answered,) = await worker.drain()
    assert isinstance(answered, Succeeded)
    rows = await superuser.fetch("select deployment, error_type, cost_usd from attempts")
    assert [tuple(row) for row in rows] == [("a", None, Decimal("0.01"))] * 2
    assert yard.count_asked() == {"a": 2}


async def test_a_job_without_a_permit_waits_until_there_may_be_one(
    yard: Yard, database: Database, superuser: asyncpg.Connection
) -> None:
    yard.limits = Limits(requests_per_minute=1)
    worker = Worker(database, yard.open(yard.group("a", timeout_seconds=0.3)))
    assert isinstance(await worker.take("task-1"), Succeeded)
    refused = await worker.take("task-2")
    assert isinstance(refused, Parked)
    assert (refused.error_type, refused.attempts) == ("LLMUnavailableError", ())
    assert 55 < await read_left(superuser) < 62
    assert await count(superuser, "attempts") == 1


async def test_a_deployment_that_named_its_time_is_not_asked_before_it_by_any_job(
    yard: Yard, database: Database, superuser: asyncpg.Connection
) -> None:
    yard.servers["a"].behave = first(refuse(429, {"retry-after": "40"}), answer())
    worker = Worker(database, yard.open(yard.group("a", timeout_seconds=5.0)))
    for task_id in ("task-1", "task-2"):
        assert isinstance(await worker.take(task_id), Parked)
        left = await superuser.fetchval("select min(next_try_at) - now() from failed_requests")
        assert 37 < left.total_seconds() <= 40
    assert yard.count_asked() == {"a": 1}
    errors = await superuser.fetch("select error_type, cost_usd from attempts")
    assert [tuple(row) for row in errors] == [("LLMRateLimitedError", None)]


async def test_what_an_answer_cost_stands_with_each_attempt(
    yard: Yard, database: Database, superuser: asyncpg.Connection
) -> None:
    yard.servers["a"].behave = first(refuse(500), send_json({"choices": []}), answer())
    worker = Worker(database, yard.open(yard.group("a")))
    assert isinstance(await worker.take("task-1"), Succeeded)
    rows = await superuser.fetch("select error_type, prompt_tokens, cost_usd from attempts order by position")
    assert [tuple(row) for row in rows] == [
        ("LLMOverloadedError", None, None),
        ("LLMBrokenAnswerError", None, None),
        (None, 11, Decimal("0.01")),
    ]
    assert await yard.spent("tenant:default") == Decimal("0.01")


async def test_a_tenant_without_money_does_not_hold_up_the_jobs_of_an_outage(
    yard: Yard, database: Database, superuser: asyncpg.Connection
) -> None:
    yard.policies = replace(yard.policies, budget=BudgetPolicy(daily_usd=Decimal("0.01")))
    await yard.serve("b")
    free = yard.deploy("b", price=replace(yard.deploy("a").price, completion_usd_per_million=Decimal(0)))
    fast = yard.group("a").groups["fast"]
    worker = Worker(database, yard.open(yard.catalog(fast, replace(fast, name="quality", deployments=(free,)))))
    assert isinstance(await worker.take("task-1"), Succeeded)
    yard.servers["b"].behave = first(refuse(503), refuse(503), refuse(503), answer())
    assert isinstance(await worker.take("task-2", "quality"), Parked)
    await superuser.execute(A_MINUTE_LATER, MINUTE)
    assert isinstance(await worker.take("task-3"), Parked)
    (answered,) = await worker.drain()
    assert isinstance(answered, Succeeded)
    states = await superuser.fetch("select error_type, state from failed_requests order by created_at")
    assert [tuple(row) for row in states] == [
        ("LLMUnavailableError", "answered"),
        ("LLMBudgetExceededError", "parked"),
    ]
