"""What is asked for together is done together: at once when alone, and never waited for longer than was said."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from orchestrator.grouping import Grouping, Rate


class Doubler:
    """Doubles numbers in groups; raises what is not a number to whoever put it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.groups: list[list[object]] = []
        self._seconds = seconds

    async def __call__(self, items: Sequence[object]) -> list[int | Exception]:
        self.groups.append(list(items))
        await asyncio.sleep(self._seconds)
        return [item * 2 if isinstance(item, int) else ValueError(f"no number: {item}") for item in items]


def use_often(grouping: Grouping[object, int]) -> None:
    """As after a tenth of a second of a busy worker."""
    now = time.monotonic()
    for n in range(101):
        grouping._rate.note(now - 0.1 + n / 1000)


async def test_alone_it_is_done_at_once() -> None:
    grouping: Grouping[object, int] = Grouping(Doubler(), longest_seconds=5)
    async with asyncio.timeout(1):
        assert await grouping.put(21) == 42


async def test_those_that_come_together_are_done_together_and_each_gets_its_own_answer() -> None:
    doubler = Doubler()
    grouping: Grouping[object, int] = Grouping(doubler)
    assert await asyncio.gather(*map(grouping.put, range(10))) == [2 * n for n in range(10)]
    assert doubler.groups == [list(range(10))]


async def test_an_answer_that_is_an_exception_is_raised_to_its_own_alone() -> None:
    grouping: Grouping[object, int] = Grouping(Doubler())
    good, bad = await asyncio.gather(grouping.put(1), grouping.put("x"), return_exceptions=True)
    assert good == 2
    assert isinstance(bad, ValueError)


async def test_what_the_call_raises_everybody_gets() -> None:
    async def fail(_: Sequence[object]) -> list[int | Exception]:
        raise KeyError("surprise")

    grouping: Grouping[object, int] = Grouping(fail)
    answers = await asyncio.gather(grouping.put(1), grouping.put(2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [KeyError, KeyError]


async def test_a_full_group_goes_at_once_and_the_rest_with_the_next() -> None:
    doubler = Doubler()
    grouping: Grouping[object, int] = Grouping(doubler, longest_seconds=5, most=4)
    use_often(grouping)
    putting = [asyncio.ensure_future(grouping.put(n)) for n in range(9)]
    await asyncio.wait(putting[:8], timeout=1)
    assert [len(group) for group in doubler.groups] == [4, 4]
    assert not putting[8].done()
    putting[8].cancel()


async def test_where_they_come_often_they_wait_for_one_another_but_not_for_long() -> None:
    doubler = Doubler()
    grouping: Grouping[object, int] = Grouping(doubler, longest_seconds=0.1)
    use_often(grouping)
    started_at = time.monotonic()
    first = asyncio.ensure_future(grouping.put(1))
    await asyncio.sleep(0.03)
    assert await grouping.put(2) == 4
    assert await first == 2
    assert doubler.groups == [[1, 2]]
    assert 0.09 < time.monotonic() - started_at < 1


async def test_a_group_under_way_keeps_nobody_waiting() -> None:
    doubler = Doubler(seconds=0.2)
    grouping: Grouping[object, int] = Grouping(doubler)
    slow = asyncio.ensure_future(grouping.put(1))
    await asyncio.sleep(0.01)
    assert len(doubler.groups) == 1
    other = asyncio.ensure_future(grouping.put(2))
    await asyncio.sleep(0.01)
    assert len(doubler.groups) == 2, "it waited for the first to end"
    assert (await slow, await other) == (2, 4)


async def test_somebody_who_goes_away_takes_nobodys_answer_along() -> None:
    grouping: Grouping[object, int] = Grouping(Doubler(seconds=0.05))
    gone, staying = asyncio.ensure_future(grouping.put(1)), asyncio.ensure_future(grouping.put(2))
    await asyncio.sleep(0.01)
    gone.cancel()
    assert await staying == 4
    with pytest.raises(asyncio.CancelledError):
        await gone


def test_the_rate_is_of_the_last_moments() -> None:
    rate = Rate(window_seconds=0.1)
    for n in range(102):
        rate.note(5 + n / 1000)
    assert rate.read(5.15) == pytest.approx(1000, rel=0.1)
    assert rate.read(6.1) < 10, "it has ended"
    rate.note(10.0)
    assert rate.read(10.01) < 1
