"""Hundreds of calls of every kind at once, most of them disturbed; what must add up in the end whatever happened."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Mapping
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from llm_pool.catalog import Limits, ModelGroup
from llm_pool.policies import CooldownPolicy
from llm_pool.pool import Pool
from llm_pool.status.metrics import Metrics
from llm_pool.types import EmbeddingRequest
from shared.attempts import Attempt, Usage
from shared.errors import LLMError
from tests.fakes.provider_server import (
    OPENAI,
    Behaviour,
    hang_up,
    never_answer,
    reset,
    send_bytes,
    send_half,
    send_stream,
)
from tests.fakes.whole_pool import PRICE, Yard, after, answer, ask, refuse

CALLS = 300
AT_ONCE = 40
BEGUN = OPENAI.pieces(["fi", "ne"])
FAULTS: tuple[Behaviour, ...] = (
    refuse(500),
    refuse(529),
    refuse(400),
    refuse(429, {"retry-after-ms": "20"}),
    refuse(429),
    hang_up,
    reset,
    never_answer,
    send_bytes(b"no JSON"),
    send_half(b'{"choices": []}'),
    send_stream(OPENAI, BEGUN, then=reset),
    send_stream(OPENAI, BEGUN, then=never_answer),
    send_stream(OPENAI, BEGUN),
    send_stream(OPENAI, []),
    after(0.05, answer()),
)


class NotingMetrics(Metrics):
    """Keeps every attempt, of cancelled calls too."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[Attempt] = []

    def count_attempt(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        super().count_attempt(attempt)


class Disturber:
    """Asks, reads, and leaves: by a seed."""

    def __init__(self, seed: int, pools: list[Pool]) -> None:
        self.draw = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self._pools = pools
        self._is_outage = False
        self._kinds = (self._complete, self._complete, self._stream, self._leave_stream, self._embed)

    async def behave(self, request: web.Request) -> web.StreamResponse:
        if self._is_outage:
            return await refuse(500)(request)
        behaviour = answer() if self.draw.random() < 0.75 else self.draw.choice(FAULTS)
        return await behaviour(request)

    async def run(self) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def run_one(number: int) -> None:
            async with gate:
                await self._disturb(number)

        await asyncio.gather(*(run_one(number) for number in range(CALLS)))
        # Chance alone does not always take every deployment of a group down at once.
        self._is_outage = True
        await asyncio.gather(*(self._see_end(self._complete(pool, "in an outage", "quality")) for pool in self._pools))

    async def _disturb(self, number: int) -> None:
        pool, model = self.draw.choice(self._pools), self.draw.choice(("fast", "quality"))
        task = asyncio.create_task(self.draw.choice(self._kinds)(pool, f"question {number % 90}", model))
        for _ in range(self.draw.choice((0, 0, 0, 1, 2))):
            await asyncio.wait([task], timeout=self.draw.random() * 0.02)
            task.cancel()
        await self._see_end(task)

    async def _see_end(self, call: Awaitable[None]) -> None:
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        assert outcome is None or isinstance(outcome, LLMError | asyncio.CancelledError), repr(outcome)
        self.outcomes[type(outcome).__name__] += 1

    async def _complete(self, pool: Pool, content: str, model: str) -> None:
        await pool.complete(ask(content, model, timeout_seconds=1.0))

    async def _stream(self, pool: Pool, content: str, model: str) -> None:
        async with aclosing(pool.stream(ask(content, model, timeout_seconds=1.0))) as chunks:
            async for _ in chunks:
                pass

    async def _leave_stream(self, pool: Pool, content: str, model: str) -> None:
        async with aclosing(pool.stream(ask(content, model, timeout_seconds=1.0))) as chunks:
            await anext(chunks)

    async def _embed(self, pool: Pool, content: str, model: str) -> None:
        await pool.embed(EmbeddingRequest(model, (content,), tenant_id="acme", timeout_seconds=1.0))


def sum_assumed(logs: list[Mapping[str, object]]) -> Decimal:
    assumed = (Decimal(str(entry["usd"])) for entry in logs if entry["event"] == "cost_assumed")
    return sum(assumed, Decimal(0))


@pytest.mark.parametrize("seed", [1, 2])
async def test_in_the_end_everything_adds_up(yard: Yard, seed: int) -> None:
    yard.metrics = metrics = NotingMetrics()
    yard.policies = replace(
        yard.policies, cooldown=CooldownPolicy(first_seconds=0.02, longest_seconds=0.05, ramp_seconds=0.06)
    )
    yard.fields = {"timeout_seconds": 0.2, "limits": Limits(100_000, 10_000_000, in_flight=12), "price": PRICE}
    await yard.serve("a", "b", "c")
    quality = ModelGroup("quality", (yard.deploy("a"), yard.deploy("b")), ("fast",), longest_wait_seconds=0.1)
    catalog = yard.catalog(quality, ModelGroup("fast", (yard.deploy("c"),)))
    disturber = Disturber(seed, [yard.open(catalog) for _ in range(3)])
    for server in yard.servers.values():
        server.behave = disturber.behave
    with capture_logs() as logs:
        await asyncio.wait_for(disturber.run(), 60)
        await yard.check_nothing_is_left()
    assert set(disturber.outcomes) >= {"NoneType", "CancelledError", "LLMUnavailableError"}
    assert len({attempt.error_type for attempt in metrics.attempts}) > 5
    await check_sums(yard, metrics.attempts, sum_assumed(logs))
    await asyncio.sleep(0.15)
    for server in yard.servers.values():
        server.behave = answer()
    assert (await yard.open(catalog).complete(ask("and now", "fast", timeout_seconds=2.0))).content == "fine"


async def check_sums(yard: Yard, attempts: list[Attempt], assumed: Decimal) -> None:
    cost = sum((attempt.cost_usd or Decimal(0) for attempt in attempts), Decimal(0))
    assert await yard.spent() == await yard.spent("tenant:acme") == cost + assumed
    for name, seen in yard.count_asked().items():
        own = [attempt for attempt in attempts if attempt.deployment == name]
        assert len(own) >= seen, "the server saw a call that nobody wrote down"
        never_sent = [a for a in own if a.error_type in ("CancelledError", "LLMTimeoutError", "LLMConnectionError")]
        assert len(own) - len(never_sent) <= seen
        used = await yard.read_permits(name)
        assert used["tokens_per_minute"] == sum((attempt.usage or Usage(0, 0)).total_tokens for attempt in own)
        assert used["requests_per_minute"] <= len(own)
