"""Whoever is cancelled, wherever it waits, leaves nothing behind: no permit, money, lease, place or socket."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import get_args

import pytest
from redis.asyncio import Redis

from llm_pool.catalog import Limits
from llm_pool.pool import Pool
from llm_pool.types import EmbeddingRequest
from shared.errors import LLMError
from tests.fakes.cancelling import When, cancelling_within, run_cancelling
from tests.fakes.whole_pool import Yard, answer, ask, first, refuse

WHENS = pytest.mark.parametrize("when", get_args(When))
MOST_WAITS = 200
"""Far more than any call has."""
FEWEST_WAITS = 3
"""Of a call on stores in memory: to connect, to send, for the answer."""

Work = Callable[[Pool, int], Awaitable[object]]


async def complete(pool: Pool, number: int) -> None:
    await pool.complete(ask(f"question {number}"))


async def embed(pool: Pool, number: int) -> None:
    await pool.embed(EmbeddingRequest("fast", (f"text {number}",), tenant_id="acme"))


async def read_stream(pool: Pool) -> None:
    async with aclosing(pool.stream(ask())) as chunks:
        async for _ in chunks:
            pass


async def forget_scripts(yard: Yard) -> None:
    """As a Redis that was restarted: the first command of each script is refused."""
    if yard.redis_url is not None:
        async with Redis.from_url(yard.redis_url) as client:
            await client.script_flush()


@WHENS
@pytest.mark.parametrize("work", [complete, embed])
async def test_a_call_may_be_cancelled_at_every_wait(yard: Yard, work: Work, when: When) -> None:
    await yard.serve("a")
    pool = yard.open()
    for at in range(1, MOST_WAITS):
        if not await run_cancelling(work(pool, at), at, when):
            break
        await yard.check_nothing_is_left()
    assert at > FEWEST_WAITS
    await asyncio.wait_for(pool.complete(ask("and now")), 2)


@WHENS
async def test_a_call_is_cancelled_and_its_pool_closed_at_once(yard: Yard, when: When) -> None:
    await yard.serve("a")
    for at in range(1, MOST_WAITS):
        await forget_scripts(yard)
        pool = yard.open()
        was_cancelled = await run_cancelling(complete(pool, at), at, when)
        await pool.aclose()
        leavings = await yard.read_leavings()
        assert (leavings.held_usd, leavings.leases, leavings.in_flight) == (0, [], {"a": 0}), f"wait {at}"
        if not was_cancelled:
            break


@WHENS
@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_probe_that_is_cancelled_gives_its_place_to_the_next(yard: Yard, when: When, is_answered: bool) -> None:
    await yard.serve("a")
    for at in range(1, MOST_WAITS):
        # Each has a cooldown of its own.
        catalog = yard.group(retries=0, deployments=(yard.deploy("a", model=f"model-{at}"),))
        (deployment,) = catalog.deployments
        yard.servers["a"].behave = answer() if is_answered else refuse(500)
        await yard.open_half(deployment)
        await forget_scripts(yard)
        pool = yard.open(catalog)
        was_cancelled = False
        with suppress(LLMError):
            was_cancelled = await run_cancelling(complete(pool, at), at, when)
        await pool.aclose()
        yard.servers["a"].behave = answer()
        await asyncio.sleep((await yard.read_cooldown(deployment)).left_seconds)
        following = yard.open(catalog)
        assert (await following.complete(ask("are you there?", timeout_seconds=2.0))).deployment == "a"
        await following.aclose()
        if not was_cancelled:
            break


@WHENS
async def test_a_reader_of_a_stream_may_leave_at_every_wait_of_the_call(yard: Yard, when: When) -> None:
    await yard.serve("a")
    pool = yard.open()
    for at in range(1, MOST_WAITS):
        reading = asyncio.create_task(read_stream(pool))
        with cancelling_within("Pool._answer", at, when, reading.cancel) as waits:
            await asyncio.gather(reading, return_exceptions=True)
        await yard.check_nothing_is_left()
        if waits and waits[0] < at:
            break
    assert at > FEWEST_WAITS


@WHENS
async def test_who_waits_for_a_permit_may_leave_the_line(yard: Yard, when: When) -> None:
    yard.limits = Limits(in_flight=1)
    await yard.serve("a")
    pool = yard.open()
    holding, released = asyncio.Event(), asyncio.Event()

    async def hold(request: object) -> object:
        holding.set()
        await released.wait()
        return await answer()(request)

    for at in range(1, MOST_WAITS):
        started = time.monotonic()
        holding.clear()
        released.clear()
        yard.servers["a"].behave = first(hold, answer())
        holder = asyncio.create_task(complete(pool, -at))
        await holding.wait()
        asyncio.get_running_loop().call_later(0.03, released.set)
        was_cancelled = await run_cancelling(complete(pool, at), at, when)
        released.set()
        await holder
        assert time.monotonic() - started < 1.0, "room was kept for one who has left"
        await yard.check_nothing_is_left()
        if not was_cancelled:
            break
    assert at >= FEWEST_WAITS  # the connection is there already


async def test_a_call_that_is_cancelled_twice(yard: Yard) -> None:
    await yard.serve("a")
    pool = yard.open()
    for at in range(1, 40):
        task = asyncio.create_task(complete(pool, at))
        for _ in range(at * 5):
            await asyncio.sleep(0)
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(task, return_exceptions=True)
        await yard.check_nothing_is_left()
