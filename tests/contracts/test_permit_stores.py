"""What every store of permits keeps to, with the clock moved or with a real server's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import pytest

from llm_pool.catalog import Limits
from llm_pool.stores.permits.base import Need, Period, Periods, Permit, PermitStore, Refusal
from llm_pool.stores.permits.fleet import FleetPermits
from llm_pool.stores.permits.memory import MemoryPermits
from llm_pool.stores.permits.redis import RedisPermits
from shared.attempts import QuotaReading
from shared.clock import SystemClock
from shared.redis_client import open_redis
from tests.fakes.moving_clock import MovingClock

SHORT = Periods(minute=Period(0.4, parts=20, transit_seconds=0.02), day=Period(60.0, parts=20, transit_seconds=1.0))
"""A minute that a test can wait for."""


@dataclass
class Kept:
    """A store, and a way to let time pass for it."""

    store: PermitStore
    let_pass: Callable[[float], Awaitable[None]]

    def __post_init__(self) -> None:
        self._ids: Iterator[int] = count()

    def need(self, tokens: int = 0, deployment: str = "a", **limits: int) -> Need:
        prompt_tokens = tokens // 2
        return Need(f"n{next(self._ids)}", deployment, Limits(**limits), prompt_tokens, tokens - prompt_tokens)

    async def take(self, tokens: int = 0, deployment: str = "a", **limits: int) -> Permit:
        answer = await self.store.reserve(self.need(tokens, deployment, **limits))
        assert isinstance(answer, Permit), answer
        return answer

    async def be_refused(self, tokens: int = 0, deployment: str = "a", **limits: int) -> Refusal:
        answer = await self.store.reserve(self.need(tokens, deployment, **limits))
        assert isinstance(answer, Refusal), answer
        return answer

    async def count_used(self, **limits: int) -> dict[str, int]:
        return {reading.cell: reading.used for reading in await self.store.read("a", Limits(**limits))}


@pytest.fixture(params=["memory", "redis", "fleet"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        clock = MovingClock()
        yield Kept(MemoryPermits(clock, SHORT), clock.sleep)
        return
    async with open_redis(request.getfixturevalue("redis_url")) as client:
        redis = RedisPermits(client, SHORT)
        store = redis if request.param == "redis" else FleetPermits(redis, SystemClock(), periods=SHORT)
        yield Kept(store, asyncio.sleep)
        await store.aclose()


async def test_as_many_pass_as_the_limit_says_however_many_ask_at_once(kept: Kept) -> None:
    needs = [kept.need(100, requests_per_minute=1000, tokens_per_minute=1000) for _ in range(64)]
    answers = await asyncio.gather(*(kept.store.reserve(need) for need in needs))
    assert sum(isinstance(answer, Permit) for answer in answers) == 10


async def test_a_deployment_counts_once_there_is_a_limit_of_ours_or_its_providers(kept: Kept) -> None:
    assert kept.store.counts("a", Limits(in_flight=1))
    if not isinstance(kept.store, RedisPermits):  # which only the server can tell
        assert not kept.store.counts("a", Limits())
    await kept.store.lower("a", tell("tokens", 300, 1000.0))
    assert kept.store.counts("a", Limits())


async def test_a_permit_takes_from_all_cells_or_from_none(kept: Kept) -> None:
    limits = {"requests_per_minute": 5, "tokens_per_minute": 1000, "requests_per_day": 5, "tokens_per_day": 300}
    refusal = await kept.be_refused(400, **limits)
    assert refusal.cell == "tokens_per_day"
    assert set((await kept.count_used(**limits)).values()) == {0}
    await kept.take(300, **limits)
    used = {"requests_per_minute": 1, "tokens_per_minute": 300, "requests_per_day": 1, "tokens_per_day": 300}
    assert await kept.count_used(**limits) == used


async def test_what_was_not_used_of_a_settled_permit_is_free_at_once(kept: Kept) -> None:
    permit = await kept.take(900, tokens_per_minute=1000)
    await kept.be_refused(200, tokens_per_minute=1000)
    await kept.store.settle(permit, 50)
    await kept.take(950, tokens_per_minute=1000)


async def test_more_than_was_reserved_is_counted_too(kept: Kept) -> None:
    await kept.store.settle(await kept.take(100, tokens_per_minute=1000), 990)
    assert (await kept.be_refused(11, tokens_per_minute=1000)).cell == "tokens_per_minute"
    await kept.take(10, tokens_per_minute=1000)


async def test_an_answer_without_usage_counts_as_reserved(kept: Kept) -> None:
    await kept.store.settle(await kept.take(600, tokens_per_minute=1000), None)
    assert await kept.count_used(tokens_per_minute=1000) == {"tokens_per_minute": 600}


@pytest.mark.parametrize(("was_sent", "requests"), [(True, 1), (False, 0)])
async def test_a_failed_call_gives_back_its_tokens_and_its_request_if_it_was_never_sent(
    kept: Kept, was_sent: bool, requests: int
) -> None:
    limits = {"requests_per_minute": 9, "tokens_per_minute": 1000, "in_flight": 9}
    permit = await kept.take(600, **limits)
    await kept.store.release(permit, was_sent=was_sent)
    used = {"requests_per_minute": requests, "tokens_per_minute": 0, "in_flight": 0}
    assert await kept.count_used(**limits) == used


async def test_a_full_minute_is_free_again_when_it_was_said_and_not_before(kept: Kept) -> None:
    for _ in range(3):
        await kept.store.settle(await kept.take(10, requests_per_minute=3), 10)
    refusal = await kept.be_refused(10, requests_per_minute=3)
    assert refusal.cell == "requests_per_minute"
    assert 0.2 < refusal.wait_seconds < 0.46
    await kept.let_pass(refusal.wait_seconds / 2)
    still = await kept.be_refused(10, requests_per_minute=3)
    await kept.let_pass(still.wait_seconds + 0.1)
    for _ in range(3):
        await kept.take(10, requests_per_minute=3)
    await kept.be_refused(10, requests_per_minute=3)


async def test_tokens_corrected_late_are_counted_where_they_were_reserved(kept: Kept) -> None:
    permit = await kept.take(100, tokens_per_minute=1000)
    await kept.let_pass(0.3)
    await kept.store.settle(permit, 1000)
    refusal = await kept.be_refused(1000, tokens_per_minute=1000)
    assert refusal.wait_seconds < 0.2
    await kept.let_pass(refusal.wait_seconds + 0.002)
    await kept.take(1000, tokens_per_minute=1000)


async def test_tokens_corrected_when_their_minute_is_over_change_nothing(kept: Kept) -> None:
    permit = await kept.take(900, tokens_per_minute=1000)
    await kept.let_pass(0.46)
    await kept.take(900, tokens_per_minute=1000)
    await kept.store.settle(permit, 0)
    assert await kept.count_used(tokens_per_minute=1000) == {"tokens_per_minute": 900}


async def test_a_place_is_free_when_its_call_has_ended(kept: Kept) -> None:
    first, second = await kept.take(in_flight=2), await kept.take(in_flight=2)
    refusal = await kept.be_refused(in_flight=2)
    assert (refusal.cell, refusal.may_come_sooner) == ("in_flight", True)
    await kept.store.settle(first, 0)
    third = await kept.take(in_flight=2)
    await kept.store.release(second, was_sent=True)
    await kept.store.release(third, was_sent=True)
    assert await kept.count_used(in_flight=2) == {"in_flight": 0}


async def test_who_might_be_served_by_an_open_permit_is_told_to_ask_soon(kept: Kept) -> None:
    permit = await kept.take(900, tokens_per_minute=1000)
    refusal = await kept.be_refused(500, tokens_per_minute=1000)
    assert (refusal.cell, refusal.may_come_sooner) == ("tokens_per_minute", True)
    await kept.store.settle(permit, 900)
    refusal = await kept.be_refused(500, tokens_per_minute=1000)
    assert (refusal.cell, refusal.may_come_sooner) == ("tokens_per_minute", False)


async def test_small_requests_do_not_starve_a_large_one_that_waits(kept: Kept) -> None:
    small = [await kept.take(100, tokens_per_minute=1000) for _ in range(10)]
    large = kept.need(900, tokens_per_minute=1000)
    assert isinstance(await kept.store.reserve(large, 0.0), Refusal)
    for permit in small[:9]:
        await kept.let_pass(0.005)
        await kept.store.release(permit, was_sent=True)
        await kept.be_refused(100, tokens_per_minute=1000)
    await kept.store.release(small[9], was_sent=True)
    await kept.take(100, tokens_per_minute=1000)
    assert isinstance(await kept.store.reserve(large, 0.05), Permit)


async def test_no_room_is_kept_for_a_request_that_gave_up(kept: Kept) -> None:
    permit = await kept.take(in_flight=1)
    patient, other = kept.need(in_flight=1), kept.need(in_flight=1)
    assert isinstance(await kept.store.reserve(patient, 0.1), Refusal)
    await kept.store.release(permit, was_sent=True)
    await kept.store.withdraw(other)
    await kept.be_refused(in_flight=1)
    await kept.store.withdraw(patient)
    await kept.take(in_flight=1)


async def test_deployments_are_counted_apart(kept: Kept) -> None:
    await kept.take(deployment="a", requests_per_minute=1)
    await kept.take(deployment="b{c}", requests_per_minute=1)
    await kept.be_refused(deployment="b{c}", requests_per_minute=1)


async def test_large_counts_keep_all_their_digits(kept: Kept) -> None:
    large = 9_007_199_254_740_000
    await kept.store.settle(await kept.take(large, tokens_per_day=large + 7), large + 6)
    assert await kept.count_used(tokens_per_day=large + 7) == {"tokens_per_day": large + 6}
    await kept.take(1, tokens_per_day=large + 7)
    await kept.be_refused(1, tokens_per_day=large + 7)


def tell(
    kind: str, remaining: int | None, resets_in_seconds: float | None, limit: int | None = 1000
) -> tuple[QuotaReading, ...]:
    return (QuotaReading(kind, "minute", limit, remaining, resets_in_seconds),)


async def test_what_the_provider_says_is_left_bounds_what_is_given_out(kept: Kept) -> None:
    await kept.take(100, tokens_per_minute=1000)
    await kept.store.lower("a", tell("tokens", 300, 1000.0))
    refusal = await kept.be_refused(400, tokens_per_minute=1000)
    assert refusal.cell == "told_tokens"
    assert 130 < refusal.wait_seconds < 150
    await kept.take(200, tokens_per_minute=1000)
    assert (await kept.be_refused(200, tokens_per_minute=1000)).cell == "told_tokens"


async def test_what_the_provider_says_never_raises_anything(kept: Kept) -> None:
    await kept.take(900, tokens_per_minute=1000)
    await kept.store.lower("a", tell("tokens", 1000, 1000.0))
    assert (await kept.be_refused(200, tokens_per_minute=1000)).cell == "tokens_per_minute"
    await kept.store.lower("a", tell("tokens", 50, 1000.0))
    await kept.store.lower("a", tell("tokens", 500, 1000.0))
    assert (await kept.be_refused(60, tokens_per_minute=10_000)).cell == "told_tokens"


async def test_what_the_provider_said_fills_up_evenly_and_ends_at_its_reset(kept: Kept) -> None:
    await kept.store.lower("a", (*tell("requests", 0, 0.4, limit=4), *tell("tokens", None, 50.0)))
    assert (await kept.be_refused(requests_per_day=100)).wait_seconds <= 0.11
    await kept.let_pass(0.21)
    await kept.take(requests_per_day=100)
    await kept.take(requests_per_day=100)
    assert (await kept.be_refused(requests_per_day=100)).cell == "told_requests"
    await kept.let_pass(0.2)
    for _ in range(6):
        await kept.take(requests_per_day=100)


async def test_what_the_provider_said_in_an_answer_counts_from_there(kept: Kept) -> None:
    before = await kept.take(500, tokens_per_minute=10_000)
    first = await kept.take(10, tokens_per_minute=10_000)
    await kept.store.settle(first, 10, tell("tokens", 300, 1000.0, limit=None))
    await kept.store.settle(before, 0)
    assert (await kept.be_refused(301, tokens_per_minute=10_000)).cell == "told_tokens"
    await kept.let_pass(0.002)
    after = await kept.take(300, tokens_per_minute=10_000)
    await kept.store.release(after, was_sent=True, readings=tell("output_tokens", 40, 1000.0))
    assert (await kept.be_refused(90, tokens_per_minute=10_000)).cell == "told_output_tokens"
    await kept.take(80, tokens_per_minute=10_000)


async def test_what_the_provider_says_binds_without_limits_of_ours(kept: Kept) -> None:
    permit = await kept.take(10)
    await kept.store.settle(permit, 10, tell("requests", 1, 60.0, limit=60))
    await kept.take(10)
    assert (await kept.be_refused(10)).cell == "told_requests"


async def test_a_limit_that_changes_holds_for_what_was_counted_before(kept: Kept) -> None:
    await kept.take(100, tokens_per_minute=1000)
    await kept.take(100, tokens_per_minute=200)
    await kept.be_refused(1, tokens_per_minute=200)


async def test_closing_twice_gives_nothing_twice(kept: Kept) -> None:
    limits = {"tokens_per_minute": 1000, "in_flight": 2}
    permit = await kept.take(400, **limits)
    await kept.take(500, **limits)
    await kept.store.release(permit, was_sent=False)
    await kept.store.release(replace(permit), was_sent=False)
    assert await kept.count_used(**limits) == {"tokens_per_minute": 500, "in_flight": 1}
