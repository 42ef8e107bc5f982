"""Whatever happens to a deployment, in whatever order: cooling never shortens, and one probe goes at a time."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import Admission
from llm_pool.stores.cooldowns.memory import MemoryCooldowns
from tests.fakes.moving_clock import MovingClock

POLICY = CooldownPolicy(failures=2, first_seconds=5.0, longest_seconds=40.0, ramp_seconds=12.0)
KEY = "a:1"
LEASE_SECONDS = 30.0

SECONDS = st.floats(0.0, 60.0)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), SECONDS),
        st.tuples(st.just("cool"), SECONDS),
        st.tuples(st.sampled_from(["admit", "succeed", "release"]), st.just(0.0)),
        st.tuples(st.just("fail"), st.one_of(st.none(), SECONDS)),
    ),
    max_size=40,
)


class Story:
    """A store, and the calls that are under way there."""

    def __init__(self) -> None:
        self.clock = MovingClock()
        self.store = MemoryCooldowns(POLICY, self.clock)
        self.under_way: list[tuple[Admission, float]] = []

    async def step(self, name: str, seconds: float | None) -> None:
        if name == "pass":
            self.clock.seconds += seconds or 0.0
        elif name == "cool":
            await self.store.cool(KEY, seconds or 0.0)
        elif name == "admit":
            admission = await self.store.admit(KEY, LEASE_SECONDS)
            if admission.way != "refused":
                self.under_way.append((admission, self.clock.seconds))
        elif self.under_way:
            await self._end(name, self.under_way.pop(0)[0], seconds)

    async def _end(self, name: str, admission: Admission, cool_seconds: float | None) -> None:
        if name == "fail":
            await self.store.fail(admission, cool_seconds)
        elif name == "succeed":
            await self.store.succeed(admission)
        else:
            await self.store.release(admission)

    async def find_end(self) -> float | None:
        state = await self.store.read(KEY)
        return self.clock.seconds + state.left_seconds if state.phase == "cooling" else None


@given(STEPS)
def test_cooling_never_shortens(steps: list[tuple[str, float | None]]) -> None:
    async def tell() -> None:
        story = Story()
        for name, seconds in steps:
            before = await story.find_end()
            await story.step(name, seconds)
            after = await story.find_end()
            if before is not None and story.clock.seconds < before:
                assert after is not None
                assert after >= before - 1e-6

    asyncio.run(tell())


@given(STEPS)
def test_one_probe_goes_at_a_time(steps: list[tuple[str, float | None]]) -> None:
    async def tell() -> None:
        story = Story()
        for name, seconds in steps:
            await story.step(name, seconds)
            probes = [at for admission, at in story.under_way if admission.way == "probe"]
            running = [at for at in probes if story.clock.seconds < at + LEASE_SECONDS]
            assert len(running) <= 1

    asyncio.run(tell())


@given(STEPS)
def test_whatever_happened_answers_open_it_again(steps: list[tuple[str, float | None]]) -> None:
    async def tell() -> None:
        story = Story()
        for name, seconds in steps:
            await story.step(name, seconds)
        story.clock.seconds += 3600.0
        for _ in range(2):
            admission = await story.store.admit(KEY, LEASE_SECONDS)
            assert admission.way in ("open", "probe")
            await story.store.succeed(admission)
            story.clock.seconds += POLICY.ramp_seconds
        assert {(await story.store.admit(KEY, LEASE_SECONDS)).way for _ in range(100)} == {"open"}

    asyncio.run(tell())
