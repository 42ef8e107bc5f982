"""What only a fleet has: a view that saves round trips, commands that arrive twice, a Redis that goes away."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs

from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import Admission, CooldownStore, Cooling, build_key
from llm_pool.stores.cooldowns.memory import MemoryCooldowns
from llm_pool.stores.cooldowns.redis import RENEWED_AFTER_SECONDS, VIEW_SECONDS, RedisCooldowns
from llm_pool.stores.cooldowns.redis_scripts import AWAY_SECONDS, Scripts
from shared.redis_client import open_redis
from tests.fakes.aged_cooldowns import age_cooldown
from tests.fakes.moving_clock import MovingClock
from tests.fakes.redis_gate import RedisGate, open_redis_gate
from tests.fakes.scripted_provider import deploy

POLICY = CooldownPolicy(failures=3, first_seconds=10.0, longest_seconds=30.0, ramp_seconds=60.0)
KEY = "a:1"
OPEN = Admission(KEY, "open")


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


@pytest.fixture
async def open_client(redis_url: str) -> AsyncIterator[Callable[[str], Redis]]:
    opened: list[Redis] = []

    def open_and_note(url: str = redis_url) -> Redis:
        opened.append(open_redis(url))
        return opened[-1]

    yield open_and_note
    for client in opened:
        await client.aclose()


@pytest.fixture
async def gate(redis_url: str) -> AsyncIterator[RedisGate]:
    async with open_redis_gate(redis_url) as gate:
        yield gate


async def count_scripts(client: Redis) -> int:
    stats = await client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_a_deployment_that_is_well_costs_one_look_in_a_while(open_client, clock: MovingClock) -> None:
    client = open_client()
    store = RedisCooldowns(client, POLICY, clock)
    await store.admit(KEY, 5.0)
    before = await count_scripts(client)
    for _ in range(500):
        await store.succeed(await store.admit(KEY, 5.0))
    assert await count_scripts(client) == before
    clock.seconds += 2 * VIEW_SECONDS
    await asyncio.gather(*(store.admit(KEY, 5.0) for _ in range(50)))
    assert await count_scripts(client) == before + 1


async def test_what_another_process_found_is_heard_soon(open_client, clock: MovingClock) -> None:
    mine, other = (RedisCooldowns(open_client(), POLICY, clock) for _ in range(2))
    assert (await mine.admit(KEY, 5.0)).way == "open"
    await other.cool(KEY, 40.0)
    assert (await mine.admit(KEY, 5.0)).way == "open"
    clock.seconds += 2 * VIEW_SECONDS
    assert (await mine.admit(KEY, 5.0)).way == "refused"


async def test_what_is_growing_old_is_heard_anew_and_nobody_waits_for_it(open_client, clock: MovingClock) -> None:
    mine, other = (RedisCooldowns(open_client(), POLICY, clock) for _ in range(2))
    assert (await mine.admit(KEY, 5.0)).way == "open"
    await other.cool(KEY, 40.0)
    clock.seconds += 2 * RENEWED_AFTER_SECONDS
    with pytest.raises(StopIteration) as admitted:
        mine.admit(KEY, 5.0).send(None)
    assert admitted.value.value.way == "open"
    await asyncio.sleep(0.1)
    assert (await mine.admit(KEY, 5.0)).way == "refused"


async def test_a_process_that_has_just_begun_asks_before_it_calls(open_client, clock: MovingClock) -> None:
    await RedisCooldowns(open_client(), POLICY, clock).cool(KEY, 40.0)
    fresh = RedisCooldowns(open_client(), POLICY, clock)
    assert {a.way for a in await asyncio.gather(*(fresh.admit(KEY, 5.0) for _ in range(30)))} == {"refused"}


async def test_an_answer_here_ends_the_row_that_was_seen_here(open_client, clock: MovingClock) -> None:
    store = RedisCooldowns(open_client(), POLICY, clock)
    for _ in range(10):
        assert await store.fail(await store.admit(KEY, 5.0), None) is None
        assert await store.fail(await store.admit(KEY, 5.0), None) is None
        await store.succeed(await store.admit(KEY, 5.0))


async def test_a_command_that_arrives_twice_counts_once(open_client, clock: MovingClock) -> None:
    scripts = Scripts(open_client(), POLICY, clock)
    for _ in range(2):
        told = await scripts.run("fail", KEY, "", -1, "the same failure")
    assert told is not None
    assert told.failures == 1
    await scripts.run("cool", KEY, 1)
    probes = [await scripts.run("admit", KEY, "the same token", 5_000_000) for _ in range(2)]
    assert [probe and probe.word for probe in probes] == ["probe", "probe"]
    for _ in range(2):
        told = await scripts.run("fail", KEY, "the same token", -1, "the failed probe")
    assert told is not None
    assert (told.phase, told.failures) == ("cooling", 2)


async def test_a_caller_that_loses_interest_while_it_asks_keeps_no_place(
    open_client, gate: RedisGate, clock: MovingClock
) -> None:
    store, other = RedisCooldowns(open_client(gate.url), POLICY, clock), RedisCooldowns(open_client(), POLICY, clock)
    await store.cool(KEY, 1e-6)
    clock.seconds += VIEW_SECONDS / 2
    gate.hold_up_answers()
    asking = asyncio.create_task(store.admit(KEY, 500.0))
    await asyncio.sleep(0.05)
    assert (await other.admit(KEY, 5.0)).way == "refused", "the place is taken, and nobody has heard of it"
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await gate.open()
    await asyncio.sleep(0.05)
    assert (await other.admit(KEY, 5.0)).way == "probe"


async def test_without_redis_each_process_goes_by_what_it_knows_and_says_so_once(
    open_client, gate: RedisGate, clock: MovingClock
) -> None:
    store = RedisCooldowns(open_client(gate.url), POLICY, clock)
    await store.cool("known:1", 40.0)
    await gate.shut()
    clock.seconds += 2 * VIEW_SECONDS
    with capture_logs() as logs:
        assert (await store.admit("known:1", 5.0)).way == "refused"
        began = [await store.fail(await store.admit(KEY, 5.0), None) for _ in range(3)]
        clock.seconds += AWAY_SECONDS
        assert (await store.admit(KEY, 5.0)).way == "refused"
        assert (await store.read(KEY)).phase == "cooling"
    assert began == [None, None, Cooling(pytest.approx(10.0), is_new=True)]
    assert [log["event"] for log in logs] == ["cooldowns_not_shared"]


async def test_when_redis_is_back_it_counts_again(open_client, gate: RedisGate, clock: MovingClock) -> None:
    store = RedisCooldowns(open_client(gate.url), POLICY, clock)
    await gate.shut()
    await store.fail(OPEN, 40.0)
    await gate.open()
    assert (await store.admit(KEY, 5.0)).way == "refused"
    clock.seconds += AWAY_SECONDS
    with capture_logs() as logs:
        assert (await store.admit(KEY, 5.0)).way == "open"
    assert [log["event"] for log in logs] == ["cooldowns_shared_again"]


async def test_a_redis_that_hangs_holds_nobody_up_for_long(open_client, gate: RedisGate, clock: MovingClock) -> None:
    store = RedisCooldowns(open_client(gate.url), POLICY, clock)
    await store.admit(KEY, 5.0)
    gate.hold_up()
    clock.seconds += 2 * VIEW_SECONDS
    async with asyncio.timeout(0.8):
        for _ in range(100):
            assert (await store.admit(KEY, 5.0)).way == "open"


async def test_who_is_forgotten_by_nobody_is_forgotten_by_redis(open_client, clock: MovingClock) -> None:
    client = open_client()
    await RedisCooldowns(client, POLICY, clock).cool(KEY, 40.0)
    assert [await client.ttl(key) > 0 for key in await client.keys("*")] == [True]


def test_a_deployment_that_was_mended_is_another_and_its_key_is_not_told() -> None:
    wrong, right = deploy("a", api_key="sk-wrong"), deploy("a", api_key="sk-right")
    assert build_key(wrong) != build_key(right)
    assert "sk-" not in build_key(wrong)
    assert build_key(wrong) == build_key(deploy("a", api_key="sk-wrong", timeout_seconds=3.0))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pass", "cool", "admit", "admit", "succeed", "fail", "fail", "release"]), st.integers(0, 40)
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_it_does_what_the_one_in_memory_does(redis_url: str, steps: list[tuple[str, int]]) -> None:
    asyncio.run(tell_twice(redis_url, steps))


async def tell_twice(redis_url: str, steps: list[tuple[str, int]]) -> None:
    async with open_redis(redis_url) as client:
        await client.flushall()
        clock = MovingClock()
        stores = MemoryCooldowns(POLICY, clock), RedisCooldowns(client, POLICY, clock, view_seconds=0.0)
        under_way: list[tuple[Admission, Admission]] = []
        for name, seconds in steps:
            if name == "pass":
                clock.seconds += seconds
                await age_cooldown(client, KEY, seconds)
            elif name == "cool":
                await asyncio.gather(*(store.cool(KEY, seconds) for store in stores))
            elif name == "admit":
                told, told_too = [await store.admit(KEY, 30.0) for store in stores]
                assert told.way == told_too.way
                assert told.retry_after_seconds == pytest.approx(told_too.retry_after_seconds, abs=0.5)
                if told.way != "refused":
                    under_way.append((told, told_too))
            elif under_way:
                pair = under_way.pop(seconds % len(under_way))
                ends = [await end(store, name, a, seconds) for store, a in zip(stores, pair, strict=True)]
                assert ends[0] == ends[1]
            states = [await store.read(KEY) for store in stores]
            assert states[0].phase == states[1].phase
            assert states[0].left_seconds == pytest.approx(states[1].left_seconds, abs=0.5)


async def end(store: CooldownStore, name: str, admission: Admission, seconds: int) -> bool | None:
    """Of a failure: whether it began a cooldown, or met with one."""
    if name == "fail":
        cooling = await store.fail(admission, float(seconds) if seconds % 3 == 0 else None)
        return None if cooling is None else cooling.is_new
    await (store.succeed(admission) if name == "succeed" else store.release(admission))
    return None
