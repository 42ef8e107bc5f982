"""What every store of cooldowns does: one suite, in memory and in Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import Admission, CooldownStore, Cooling
from llm_pool.stores.cooldowns.memory import MemoryCooldowns
from llm_pool.stores.cooldowns.redis import RedisCooldowns
from shared.redis_client import open_redis
from tests.fakes.aged_cooldowns import age_cooldown
from tests.fakes.moving_clock import MovingClock

POLICY = CooldownPolicy(failures=3, first_seconds=10.0, longest_seconds=30.0, ramp_seconds=60.0)
KEY = "a:1"


@dataclass
class Fleet:
    """Several processes, as far as a store can tell, and a way to let time pass for all of them."""

    members: list[CooldownStore]
    pass_time: Callable[[float], Awaitable[None]]

    async def cool(self, failures: int = POLICY.failures) -> float | None:
        """By failures in a row, each seen by another member."""
        began = None
        for number in range(failures):
            began = await self.fail(Admission(KEY, "open"), member=number)
        return began

    async def fail(self, admission: Admission, cool_seconds: float | None = None, *, member: int = 0) -> float | None:
        """Seconds of the cooling that this began."""
        cooling = await self.members[member % len(self.members)].fail(admission, cool_seconds)
        return cooling.left_seconds if cooling is not None and cooling.is_new else None

    async def admit(self, count: int = 1, lease_seconds: float = 50.0) -> list[Admission]:
        """At once, by all members in turn."""
        asking = [self.members[number % len(self.members)].admit(KEY, lease_seconds) for number in range(count)]
        return list(await asyncio.gather(*asking))

    async def admit_one(self, lease_seconds: float = 50.0) -> Admission:
        return (await self.admit(1, lease_seconds))[0]


@pytest.fixture(params=["memory", "redis"])
def build_fleet(request: pytest.FixtureRequest) -> Callable[[CooldownPolicy], Fleet]:
    return request.getfixturevalue(f"build_{request.param}_fleet")


@pytest.fixture
def build_memory_fleet() -> Callable[[CooldownPolicy], Fleet]:
    clock = MovingClock()
    return lambda policy: Fleet([MemoryCooldowns(policy, clock)], clock.sleep)


@pytest.fixture
async def build_redis_fleet(redis_url: str) -> AsyncIterator[Callable[[CooldownPolicy], Fleet]]:
    clients = [open_redis(redis_url) for _ in range(4)]
    clock = MovingClock()

    async def pass_time(seconds: float) -> None:
        clock.seconds += seconds
        await age_cooldown(clients[0], KEY, seconds)

    yield lambda policy: Fleet(
        [RedisCooldowns(client, policy, clock, view_seconds=0.0) for client in clients], pass_time
    )
    for client in clients:
        await client.aclose()


@pytest.fixture
def fleet(build_fleet: Callable[[CooldownPolicy], Fleet]) -> Fleet:
    return build_fleet(POLICY)


def ways(admissions: list[Admission]) -> list[str]:
    return sorted(admission.way for admission in admissions)


async def test_a_deployment_that_nothing_happened_to_is_open_to_all(fleet: Fleet) -> None:
    assert set(ways(await fleet.admit(20))) == {"open"}
    assert (await fleet.members[0].read(KEY)).phase == "open"


async def test_failures_in_a_row_are_counted_over_the_fleet(fleet: Fleet) -> None:
    assert await fleet.cool(failures=2) is None
    assert (await fleet.members[0].read(KEY)).failures == 2
    assert await fleet.cool(failures=1) == pytest.approx(10)
    state = await fleet.members[-1].read(KEY)
    assert state.phase == "cooling"
    assert 9 < state.left_seconds <= 10.001


async def test_who_asks_while_it_cools_is_refused_and_told_for_how_long(fleet: Fleet) -> None:
    await fleet.cool()
    refused = await fleet.admit(8)
    assert set(ways(refused)) == {"refused"}
    assert all(9 < admission.retry_after_seconds < 10.001 for admission in refused)


async def test_an_answer_ends_the_row(fleet: Fleet) -> None:
    await fleet.cool(failures=2)
    for store in fleet.members:
        await store.succeed(await store.admit(KEY, 50.0))
    assert await fleet.cool(failures=2) is None


async def test_one_failure_suffices_where_the_wait_is_named(fleet: Fleet) -> None:
    assert await fleet.fail(Admission(KEY, "open"), 40.0) == pytest.approx(40.0)
    assert 39 < (await fleet.members[-1].read(KEY)).left_seconds < 40.01


async def test_of_two_ends_the_later_holds(fleet: Fleet) -> None:
    await fleet.members[0].cool(KEY, 40.0)
    await fleet.members[0].cool(KEY, 1.0)
    assert await fleet.fail(Admission(KEY, "open"), 2.0, member=-1) is None
    assert (await fleet.members[0].read(KEY)).left_seconds > 39
    await fleet.members[0].cool(KEY, 90.0)
    assert (await fleet.members[0].read(KEY)).left_seconds > 89


async def test_after_it_one_of_twenty_goes_through_as_the_probe(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    admissions = await fleet.admit(20)
    assert ways(admissions) == ["probe", *["refused"] * 19]
    assert all(a.retry_after_seconds < 10.001 for a in admissions), "a probe is soon over: nobody is sent away for long"


async def test_a_probe_that_never_comes_back_blocks_for_its_lease_only(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    assert (await fleet.admit_one(lease_seconds=10)).way == "probe"
    assert (await fleet.admit_one()).way == "refused"
    await fleet.pass_time(11)
    assert ways(await fleet.admit(20)) == ["probe", *["refused"] * 19]


async def test_a_probe_without_a_verdict_makes_room_for_the_next(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.members[-1].release(await fleet.admit_one())
    assert (await fleet.admit_one()).way == "probe"


async def test_each_failed_probe_doubles_the_time_up_to_the_longest(fleet: Fleet) -> None:
    await fleet.cool()
    lengths = []
    for waited in (11, 21, 31):
        await fleet.pass_time(waited)
        lengths.append(await fleet.fail(await fleet.admit_one(), member=-1))
    assert lengths == [pytest.approx(20), pytest.approx(30), pytest.approx(30)]


async def test_a_failed_probe_is_left_alone_as_long_as_the_provider_says(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    assert await fleet.fail(await fleet.admit_one(), 70.0) == pytest.approx(70)


async def test_after_the_probe_the_calls_at_once_double_until_everybody_may_go(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.members[0].succeed(await fleet.admit_one())
    assert ways(await fleet.admit(20, lease_seconds=500)) == ["ramp", *["refused"] * 19]
    for more in (1, 2, 4, 8, 16):
        await fleet.pass_time(10.5)
        assert ways(await fleet.admit(40, lease_seconds=500)).count("ramp") == more
    await fleet.pass_time(10)
    assert set(ways(await fleet.admit(100))) == {"open"}


async def test_a_place_in_the_ramp_is_free_again_when_its_call_ends(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.members[0].succeed(await fleet.admit_one())
    for hand_back in (fleet.members[0].succeed, fleet.members[0].release):
        place = await fleet.admit_one()
        assert place.way == "ramp"
        await hand_back(place)


async def test_places_of_dead_workers_come_back_by_themselves(build_fleet: Callable[[CooldownPolicy], Fleet]) -> None:
    fleet = build_fleet(POLICY)
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.members[0].succeed(await fleet.admit_one())
    assert (await fleet.admit_one(lease_seconds=10)).way == "ramp"
    assert (await fleet.admit_one()).way == "refused"
    await fleet.pass_time(11)
    assert (await fleet.admit_one()).way == "ramp"


async def test_who_is_not_let_into_the_ramp_is_told_when_it_grows(
    build_fleet: Callable[[CooldownPolicy], Fleet],
) -> None:
    fleet = build_fleet(POLICY)
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.members[0].succeed(await fleet.admit_one())
    _, refused = await fleet.admit_one(), await fleet.admit_one()
    assert refused.retry_after_seconds == pytest.approx(10, abs=1)


async def test_failures_in_a_row_end_the_ramp_with_twice_the_time(
    build_fleet: Callable[[CooldownPolicy], Fleet],
) -> None:
    fleet = build_fleet(POLICY)
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.members[0].succeed(await fleet.admit_one())
    assert await fleet.fail(await fleet.admit_one()) is None
    await fleet.members[0].succeed(await fleet.admit_one())
    began = [await fleet.fail(await fleet.admit_one()) for _ in range(3)]
    assert began == [None, None, pytest.approx(20)]


async def test_once_it_is_open_again_the_next_cooling_is_a_short_one(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.fail(await fleet.admit_one())
    await fleet.pass_time(21)
    await fleet.members[0].succeed(await fleet.admit_one())
    await fleet.pass_time(61)
    assert await fleet.cool() == pytest.approx(10)


async def test_without_a_ramp_the_probe_opens_it_to_all(build_fleet: Callable[[CooldownPolicy], Fleet]) -> None:
    fleet = build_fleet(replace(POLICY, ramp_seconds=0.0))
    await fleet.cool()
    await fleet.pass_time(11)
    await fleet.members[0].succeed(await fleet.admit_one())
    assert (await fleet.members[0].admit(KEY, 50.0)).way == "open"


async def test_what_began_before_the_cooling_neither_ends_nor_prolongs_it(fleet: Fleet) -> None:
    early = await fleet.admit_one()
    await fleet.members[0].cool(KEY, 40.0)
    await fleet.members[0].succeed(early)
    assert await fleet.members[0].fail(early, None) == Cooling(pytest.approx(40, abs=0.1), is_new=False)
    assert 39 < (await fleet.members[0].read(KEY)).left_seconds < 40.01


async def test_a_late_verdict_of_a_probe_that_was_given_up_says_nothing(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    late = await fleet.admit_one(lease_seconds=10)
    await fleet.pass_time(11)
    assert (await fleet.admit_one()).way == "probe"
    await fleet.members[0].succeed(late)
    assert await fleet.fail(late) is None
    assert (await fleet.members[0].read(KEY)).phase == "half_open"
    assert (await fleet.admit_one()).way == "refused"


async def test_a_probe_that_is_under_way_stays_the_only_one_whatever_is_heard_meanwhile(fleet: Fleet) -> None:
    await fleet.cool()
    await fleet.pass_time(11)
    probe = await fleet.admit_one(lease_seconds=100)
    await fleet.members[-1].cool(KEY, 20.0)
    await fleet.pass_time(21)
    assert ways(await fleet.admit(8)) == ["refused"] * 8
    await fleet.members[0].succeed(probe)
    assert (await fleet.members[0].read(KEY)).phase == "ramping"
