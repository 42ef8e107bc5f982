"""One timer for many calls: each is ended at its own moment."""

import asyncio

import pytest

from llm_pool.providers.http_deadlines import Deadlines


class Watch:
    """Writes down who was ended, and how late."""

    def __init__(self) -> None:
        self.deadlines = Deadlines()
        self.ended: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()

    def add(self, name: str, seconds: float) -> None:
        moment = self._began_at + seconds
        self.deadlines.add(name, moment, lambda: self.ended.update({name: self._loop.time() - moment}))


@pytest.fixture
async def watch() -> Watch:
    return Watch()


@pytest.mark.parametrize("order", [(0.03, 0.06, 0.09), (0.09, 0.03, 0.06), (0.09, 0.06, 0.03)])
async def test_each_is_ended_at_its_moment_whoever_came_first(watch: Watch, order: tuple[float, ...]) -> None:
    for seconds in order:
        watch.add(f"{seconds}", seconds)
    await asyncio.sleep(0.045)
    assert list(watch.ended) == ["0.03"]
    await asyncio.sleep(0.1)
    assert list(watch.ended) == ["0.03", "0.06", "0.09"]
    assert all(-0.001 < lateness < 0.03 for lateness in watch.ended.values()), watch.ended


async def test_those_of_one_moment_end_together(watch: Watch) -> None:
    for name in "abc":
        watch.add(name, 0.02)
    await asyncio.sleep(0.05)
    assert list(watch.ended) == ["a", "b", "c"]


async def test_whoever_was_answered_is_left_alone_and_the_others_are_not(watch: Watch) -> None:
    watch.add("answered", 0.02)
    watch.add("late", 0.04)
    watch.deadlines.discard("answered")
    watch.deadlines.discard("answered")
    await asyncio.sleep(0.08)
    assert list(watch.ended) == ["late"]


async def test_who_comes_when_nobody_was_left_is_ended_too(watch: Watch) -> None:
    watch.add("first", 0.01)
    await asyncio.sleep(0.03)
    watch.add("second", 0.05)
    await asyncio.sleep(0.05)
    assert list(watch.ended) == ["first", "second"]


async def test_after_the_end_nobody_is_ended(watch: Watch) -> None:
    watch.add("a", 0.02)
    watch.deadlines.close()
    await asyncio.sleep(0.05)
    assert watch.ended == {}


async def test_thousands_that_are_answered_in_time_take_one_timer(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, timers = asyncio.get_running_loop(), []
    set_timer = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *timer, **options: timers.append(timer) or set_timer(*timer, **options))
    for number in range(2000):
        watch.add(f"{number}", 60.0 + number / 1000)
        watch.deadlines.discard(f"{number - 50}")
    assert len(timers) == 1
