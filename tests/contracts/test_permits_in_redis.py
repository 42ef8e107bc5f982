"""What only a fleet's permits have: workers that die, a Redis that goes away, keys that must not stay."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs

from llm_pool.catalog import Limits
from llm_pool.stores.permits.base import PERIODS, Need, Period, Periods, Permit, PermitStore, Refusal
from llm_pool.stores.permits.fleet import FleetPermits
from llm_pool.stores.permits.redis import RedisPermits
from shared.attempts import QuotaReading
from shared.clock import SystemClock
from shared.redis_client import open_redis
from tests.fakes.permit_oracle import CALLS, LIMITS, Oracle, Release, Reserve, Settle
from tests.fakes.redis_gate import RedisGate, open_redis_gate

IDS = (f"n{number}" for number in count())


def need(tokens: int = 0, deployment: str = "a", **limits: int) -> Need:
    return Need(next(IDS), deployment, Limits(**limits), tokens)


async def take(store: PermitStore, tokens: int = 0, **limits: int) -> Permit:
    answer = await store.reserve(need(tokens, **limits))
    assert isinstance(answer, Permit), answer
    return answer


async def count_used(store: PermitStore, **limits: int) -> dict[str, int]:
    return {reading.cell: reading.used for reading in await store.read("a", Limits(**limits))}


async def wait_until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await is_so():  # noqa: ASYNC110 - a server offers no event to wait for
            await asyncio.sleep(0.02)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
async def gate(redis_url: str) -> AsyncIterator[RedisGate]:
    async with open_redis_gate(redis_url) as gate:
        yield gate


@pytest.fixture
async def open_fleet(redis_url: str) -> AsyncIterator[Callable[..., FleetPermits]]:
    """One process of a fleet for each call."""
    opened: list[tuple[FleetPermits, Redis]] = []

    def open_one(url: str = redis_url, *, beat_seconds: float = 0.05, lease_seconds: float = 0.3) -> FleetPermits:
        client = open_redis(url, answer_seconds=0.3)
        redis = RedisPermits(client, lease_seconds=lease_seconds)
        opened.append((FleetPermits(redis, SystemClock(), beat_seconds=beat_seconds), client))
        return opened[-1][0]

    yield open_one
    for store, client in opened:
        await store.aclose()
        await client.aclose()


async def test_what_a_dead_worker_held_comes_back_when_its_lease_ends(client: Redis) -> None:
    dead, alive = RedisPermits(client, lease_seconds=0.1), RedisPermits(client)
    limits = {"tokens_per_minute": 1000, "requests_per_minute": 5, "in_flight": 1}
    await take(dead, 900, **limits)
    assert isinstance(await alive.reserve(need(900, **limits)), Refusal)
    await asyncio.sleep(0.12)
    assert await count_used(alive, **limits) == {"requests_per_minute": 1, "tokens_per_minute": 0, "in_flight": 0}
    await take(alive, 900, **limits)


async def test_a_call_that_lasts_keeps_its_permit_while_its_worker_lives(open_fleet) -> None:
    store = open_fleet()
    await take(store, 900, tokens_per_minute=1000, in_flight=1)
    await asyncio.sleep(0.5)
    assert isinstance(await open_fleet().reserve(need(900, tokens_per_minute=1000, in_flight=1)), Refusal)


async def test_a_call_that_ends_after_its_lease_is_counted_all_the_same(client: Redis) -> None:
    store = RedisPermits(client, lease_seconds=0.05)
    permit = await take(store, 900, tokens_per_minute=1000)
    await asyncio.sleep(0.07)
    assert await count_used(store, tokens_per_minute=1000) == {"tokens_per_minute": 0}
    await store.settle(permit, 700)
    assert await count_used(store, tokens_per_minute=1000) == {"tokens_per_minute": 700}


async def test_a_lease_that_has_lapsed_is_not_renewed(client: Redis) -> None:
    store = RedisPermits(client, lease_seconds=0.05)
    permit = await take(store, in_flight=1)
    await asyncio.sleep(0.07)
    assert await count_used(store, in_flight=1) == {"in_flight": 0}
    assert await store.renew("a", "process", [permit.need.id]) == 1
    assert await count_used(store, in_flight=1) == {"in_flight": 0}


async def test_a_reservation_that_arrives_twice_takes_once(client: Redis) -> None:
    store, asked = RedisPermits(client), need(400, tokens_per_minute=1000, in_flight=5)
    assert await store.reserve(asked) == await store.reserve(asked)
    assert await count_used(store, tokens_per_minute=1000, in_flight=5) == {"tokens_per_minute": 400, "in_flight": 1}


async def test_work_and_memory_do_not_grow_with_the_calls(client: Redis) -> None:
    parts = 10
    store = RedisPermits(client, Periods(Period(0.2, parts, 0.0), Period(0.2, parts, 0.0)))
    limits = {"requests_per_minute": 10**6, "tokens_per_minute": 10**9, "tokens_per_day": 10**9}
    for _ in range(40):
        permits = [await take(store, 4000, **limits) for _ in range(10)]
        for permit in permits:
            await store.settle(permit, 3000)
    keys = {key.decode().rpartition(":")[2]: key async for key in client.scan_iter("llmyard:permits:{a}:*")}
    assert set(keys) == {"counts"}
    assert await client.hlen(keys["counts"]) <= 3 * (parts + 2 + 2) + 1


async def test_every_key_is_tagged_by_its_deployment_and_expires(client: Redis, open_fleet) -> None:
    store = open_fleet()
    await take(store, 10, requests_per_minute=5, in_flight=3)
    await store.lower("a", (QuotaReading("tokens", "day", 1000, 5, 80_000.0),))
    await wait_until(lambda: client.exists("llmyard:permits:{a}:processes"))
    keys = [key async for key in client.scan_iter("*")]
    assert {key.decode().rpartition(":")[0] for key in keys} == {"llmyard:permits:{a}"}
    assert len(keys) == 4
    for key in keys:
        assert 86_400 < await client.ttl(key) < 2 * 86_400


async def test_scripts_that_the_server_forgot_are_sent_again(client: Redis) -> None:
    store = RedisPermits(client)
    await take(store, requests_per_minute=2)
    await client.script_flush()
    await take(store, requests_per_minute=2)
    assert isinstance(await store.reserve(need(requests_per_minute=2)), Refusal)


async def test_a_deployment_without_limits_is_never_asked_about(open_fleet, client: Redis) -> None:
    store = open_fleet("redis://127.0.0.1:1/0")
    with capture_logs() as logs:
        permit = await take(store, 100)
        await store.settle(permit, 100, (QuotaReading("requests", "minute", 60, 0, 60.0),))
        assert isinstance(await store.reserve(need(100)), Refusal)
    assert logs == []
    assert await client.dbsize() == 0


async def test_a_caller_that_goes_away_while_it_asks_leaves_no_permit_behind(open_fleet, gate: RedisGate) -> None:
    store = open_fleet(gate.url, lease_seconds=30.0)
    await take(store, 100, tokens_per_minute=1000)
    gate.hold_up()
    asking = asyncio.create_task(store.reserve(need(500, tokens_per_minute=1000)))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await gate.open()

    async def is_given_back() -> bool:
        return await count_used(store, tokens_per_minute=1000) == {"tokens_per_minute": 100}

    await asyncio.sleep(0.05)
    await wait_until(is_given_back)


async def test_while_the_server_is_away_each_process_has_its_share(open_fleet, gate: RedisGate) -> None:
    stores = [open_fleet(gate.url) for _ in range(4)]
    taken = [await take(store, requests_per_minute=40) for store in stores]
    await asyncio.sleep(0.2)
    await gate.shut()
    with capture_logs() as logs:
        answers = [await stores[0].reserve(need(requests_per_minute=40)) for _ in range(40)]
    assert sum(isinstance(answer, Permit) for answer in answers) == 40 // 4 - 1
    assert [entry["event"] for entry in logs] == ["permits_unavailable"] * len(logs)
    assert len(logs) <= len(taken)


async def test_a_server_that_hangs_holds_up_no_call_but_those_that_find_out(open_fleet, gate: RedisGate) -> None:
    store = open_fleet(gate.url)
    await take(store, requests_per_minute=100)
    gate.hold_up()
    async with asyncio.timeout(5):
        await asyncio.gather(*(take(store, requests_per_minute=100) for _ in range(10)))
    async with asyncio.timeout(0.2):
        await asyncio.gather(*(take(store, requests_per_minute=100) for _ in range(10)))


async def test_what_ended_while_the_server_was_away_is_told_when_it_is_back(open_fleet, gate: RedisGate) -> None:
    store, other = open_fleet(gate.url, lease_seconds=30.0), open_fleet()
    limits = {"tokens_per_minute": 1000, "in_flight": 5}
    permits = [await take(store, 400, **limits) for _ in range(2)]
    await gate.shut()
    for permit in permits:
        await store.settle(permit, 50)
    await gate.open()

    async def is_told() -> bool:
        return await count_used(other, **limits) == {"tokens_per_minute": 100, "in_flight": 0}

    await wait_until(is_told)


async def test_after_a_server_that_lost_its_counts_comes_back_the_minute_is_not_given_twice(
    open_fleet, gate: RedisGate, client: Redis
) -> None:
    store = open_fleet(gate.url)
    for _ in range(5):
        await take(store, requests_per_minute=5)
    await gate.shut()
    assert isinstance(await store.reserve(need(requests_per_minute=5)), Refusal)
    await client.flushall()
    await gate.open()
    await wait_until(lambda: client.exists("llmyard:permits:{a}:processes"))
    refusal = await store.reserve(need(requests_per_minute=5))
    assert isinstance(refusal, Refusal)
    assert refusal.wait_seconds > PERIODS.minute.seconds / 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LIMITS, st.lists(CALLS, max_size=25))
def test_whatever_is_asked_in_whatever_order_limits_hold_and_nothing_leaks(
    redis_url: str, limits: Limits, steps: list[Reserve | Settle | Release]
) -> None:
    async def run() -> None:
        async with open_redis(redis_url) as client:
            oracle = Oracle(RedisPermits(client), limits, deployment=next(IDS))
            for step in steps:
                await oracle.do(step)
            assert await oracle.count_used() == oracle.count_limited()
            await oracle.end_all()
            assert await oracle.count_used() == oracle.count_limited()

    asyncio.run(run())
