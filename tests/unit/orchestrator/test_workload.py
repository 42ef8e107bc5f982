"""N jobs wait at once: more are taken as some are answered, single ones before those of a slice."""

import asyncio
from contextlib import ExitStack
from math import exp

import pytest

from orchestrator.workload import (
    AHEAD_SECONDS,
    REMEMBERED_SECONDS,
    SLICES_AHEAD_SECONDS,
    NoSlotError,
    Place,
    Slots,
    Workload,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workload(clock: Clock) -> Workload:
    return Workload(8, clock)


def test_an_idle_worker_has_room_for_as_many_as_it_has_slots(workload: Workload) -> None:
    assert workload.find_room(0) == 8
    assert workload.find_room(5) == 3
    assert workload.find_room(8) == 0
    assert workload.find_room(9) < 0


def test_what_is_answered_and_being_recorded_takes_no_room(workload: Workload) -> None:
    with workload.enter_single() as place:
        assert workload.find_room(8) == 0
        place.make_room()
        assert workload.find_room(8) == 1
    assert workload.find_room(8) == 0, "its task has ended: the consumer no longer counts it"


def test_a_surprise_gives_back_what_was_taken(workload: Workload) -> None:
    def surprise() -> None:
        with workload.enter_slice(5), workload.enter_single() as place:
            place.make_room()
            raise KeyError

    with pytest.raises(KeyError):
        surprise()
    assert workload.find_room(8) == 0
    assert workload.find_room_in_slices(0, 0) == 8


def answer(workload: Workload, clock: Clock, count: int, seconds: float) -> None:
    with ExitStack() as stack:
        for _ in range(count):
            clock.now += seconds / count
            stack.enter_context(workload.enter_single()).make_room()


def test_as_many_are_claimed_ahead_as_are_answered_in_half_a_second(clock: Clock) -> None:
    workload = Workload(80, clock)
    answer(workload, clock, 2000, 20.0)
    assert workload.find_room(80) == pytest.approx(100 * AHEAD_SECONDS, abs=2)


def test_answers_that_come_in_waves_count_as_those_that_come_one_by_one(clock: Clock) -> None:
    workload = Workload(64, clock)
    for _ in range(20):
        answer(workload, clock, 64, 0.01)
        clock.now += 5
    assert 0 < workload.find_room(64) <= 64 / 5, "half a second's, and not all that ended together"


def test_what_was_answered_often_and_is_no_more_lets_less_and_less_be_claimed_ahead(clock: Clock) -> None:
    workload = Workload(80, clock)
    answer(workload, clock, 2000, 20.0)
    clock.now += 4
    assert 0 < workload.find_room(80) < 100 * AHEAD_SECONDS / 2
    clock.now += 60
    assert workload.find_room(80) == 0


def test_what_gave_up_lets_nothing_be_claimed_ahead(workload: Workload, clock: Clock) -> None:
    for _ in range(100):
        clock.now += 0.01
        with workload.enter_single() as place:
            place.make_room(is_answered=False)
    assert workload.find_room(8) == 0


def test_never_more_ahead_than_there_are_slots(workload: Workload, clock: Clock) -> None:
    answer(workload, clock, 10_000, 10.0)
    assert workload.find_room(0) == 16


def test_slow_answers_let_nothing_be_claimed_ahead_that_another_worker_could_have(
    workload: Workload, clock: Clock
) -> None:
    answer(workload, clock, 4, 60.0)
    assert workload.find_room(8) == 0


def test_a_slice_is_taken_where_slots_would_stay_empty(workload: Workload) -> None:
    assert workload.find_room_in_slices(0, 0) == 8
    assert workload.find_room_in_slices(8, 0) == 0, "single jobs fill it"
    with workload.enter_slice(20) as places:
        assert workload.find_room_in_slices(0, 1) <= 0
        assert workload.find_room(0) == 8, "a slice keeps no single job out"
        for place in places[:13]:
            place.make_room()
        assert workload.find_room_in_slices(0, 1) > 0, "7 are left for 8 slots"
        assert workload.find_room_in_slices(4, 1) <= 0


def test_a_slice_that_was_taken_and_has_not_begun_leaves_no_room_for_another(workload: Workload) -> None:
    assert workload.find_room_in_slices(0, 1) == 0


def test_more_of_slices_is_taken_ahead_where_the_model_is_quick(workload: Workload, clock: Clock) -> None:
    answer(workload, clock, 30_000, 10.0)
    ahead = 3_000 * (1 - exp(-10.0 / REMEMBERED_SECONDS)) * SLICES_AHEAD_SECONDS
    assert workload.find_room_in_slices(0, 0) == pytest.approx(8 + ahead, abs=1)
    assert workload.find_room(0) == 16, "of single jobs no more than before"


async def hold(place: Place, order: list[str], name: str, release: asyncio.Event) -> None:
    async with place.slot():
        order.append(name)
        await release.wait()


async def test_a_single_job_gets_the_next_slot_before_all_of_a_slice() -> None:
    workload, order, releases = Workload(1), list[str](), [asyncio.Event() for _ in range(4)]
    with workload.enter_slice(3) as places, workload.enter_single() as single:
        names = [(places[0], "s0"), (places[1], "s1"), (places[2], "s2"), (single, "single")]
        running = [
            asyncio.ensure_future(hold(place, order, name, release))
            for (place, name), release in zip(names, releases, strict=True)
        ]
        await asyncio.sleep(0)
        assert order == ["s0"]
        for release in releases:
            release.set()
        await asyncio.gather(*running)
    assert order == ["s0", "single", "s1", "s2"]


async def test_a_turn_that_comes_to_somebody_gone_is_the_next_ones() -> None:
    slots = Slots(1)
    await slots.acquire(is_urgent=True)
    gone, next_ = (asyncio.ensure_future(slots.acquire(is_urgent=True)) for _ in range(2))
    await asyncio.sleep(0)
    slots.release(is_urgent=True)
    gone.cancel()
    await asyncio.wait_for(next_, 1)
    slots.release(is_urgent=True)
    await asyncio.wait_for(slots.acquire(is_urgent=False), 1)


async def test_whoever_goes_while_it_waits_leaves_the_line() -> None:
    slots = Slots(1)
    await slots.acquire(is_urgent=False)
    gone = asyncio.ensure_future(slots.acquire(is_urgent=False))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    slots.release(is_urgent=True)
    await asyncio.wait_for(slots.acquire(is_urgent=False), 1)


async def test_whoever_waits_too_long_for_others_of_its_kind_goes_to_another_worker() -> None:
    slots = Slots(1, patience_seconds=0.05)
    await slots.acquire(is_urgent=True)
    with pytest.raises(NoSlotError):
        await asyncio.wait_for(slots.acquire(is_urgent=True), 2)
    slots.release(is_urgent=True)
    await asyncio.wait_for(slots.acquire(is_urgent=True), 1)


async def test_behind_a_slice_a_single_job_waits_for_as_long_as_it_takes() -> None:
    slots = Slots(1, patience_seconds=0.05)
    await slots.acquire(is_urgent=False)
    waiting = asyncio.ensure_future(slots.acquire(is_urgent=True))
    await asyncio.sleep(0.15)
    assert not waiting.done(), "no other worker has anything better for it than the next slot"
    slots.release(is_urgent=False)
    await asyncio.wait_for(waiting, 1)


async def test_a_job_of_a_slice_waits_for_as_long_as_it_takes() -> None:
    slots = Slots(1, patience_seconds=0.05)
    await slots.acquire(is_urgent=True)
    waiting = asyncio.ensure_future(slots.acquire(is_urgent=False))
    await asyncio.sleep(0.15)
    assert not waiting.done()
    slots.release(is_urgent=True)
    await asyncio.wait_for(waiting, 1)


async def test_slices_wait_their_turn_where_nobody_else_holds_them_back() -> None:
    workload = Workload(2)
    with workload.enter_slice(4) as places:
        waiting = asyncio.ensure_future(workload.slice_turn())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        for place in places[:3]:
            place.make_room()
        await asyncio.wait_for(waiting, 1)
