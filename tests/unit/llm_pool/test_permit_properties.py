"""Whatever is asked of a store of permits in whatever order: limits hold, and nothing leaks."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool.catalog import Limits
from llm_pool.stores.permits.base import PERIODS
from llm_pool.stores.permits.memory import MemoryPermits
from tests.fakes.moving_clock import MovingClock
from tests.fakes.permit_oracle import CALLS, LIMITS, TIMES, LetPass, Oracle, Release, Reserve, Settle

Step = Reserve | Settle | Release | LetPass
STEPS = st.lists(CALLS | TIMES, max_size=60)
unhurried = settings(deadline=None)


async def drive(limits: Limits, steps: list[Step]) -> tuple[Oracle, MovingClock]:
    clock = MovingClock()
    oracle = Oracle(MemoryPermits(clock), limits)
    for step in steps:
        if isinstance(step, LetPass):
            clock.seconds += step.seconds
            oracle.now += step.seconds
        else:
            await oracle.do(step)
    return oracle, clock


@unhurried
@given(LIMITS, STEPS)
def test_no_window_ever_holds_more_than_the_limit_and_nobody_is_refused_beside_free_room(
    limits: Limits, steps: list[Step]
) -> None:
    asyncio.run(drive(limits, steps))


@unhurried
@given(LIMITS, STEPS)
def test_when_all_have_ended_and_time_has_passed_nothing_is_counted(limits: Limits, steps: list[Step]) -> None:
    async def run() -> None:
        oracle, clock = await drive(limits, steps)
        await oracle.end_all()
        clock.seconds += PERIODS.day.span_seconds + PERIODS.day.part_seconds
        assert not any((await oracle.count_used()).values())

    asyncio.run(run())


@unhurried
@given(LIMITS, STEPS)
def test_what_is_read_is_what_was_taken(limits: Limits, steps: list[Step]) -> None:
    async def run() -> None:
        oracle, _ = await drive(limits, steps)
        least, most = oracle.count(is_exact=True), oracle.count(is_exact=False)
        for cell, used in (await oracle.count_used()).items():
            assert least[cell] <= used <= most[cell]

    asyncio.run(run())
