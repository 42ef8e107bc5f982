"""The way down of a worker: which stage follows when, and that each wish for the end goes one further."""

import asyncio
import time

import pytest

from orchestrator.liveness import stopping
from orchestrator.liveness.stopping import OrderlyStop, StopActions


class Actions:
    """Remembers what was done, and when."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.at: list[float] = []

    def do(self, what: str) -> int:
        self.done.append(what)
        self.at.append(time.monotonic())
        return 1

    def build(self) -> StopActions:
        names = ("drain", "hand_back", "abandon", "end")
        return StopActions(*((lambda name=name: self.do(name)) for name in names))


@pytest.fixture
def actions() -> Actions:
    return Actions()


def build_stop(actions: Actions, grace_seconds: float = 60.0) -> OrderlyStop:
    return OrderlyStop(asyncio.get_running_loop(), actions.build(), grace_seconds=grace_seconds)


async def ask(stop: OrderlyStop) -> None:
    """Later than one that means the same wish."""
    stop.ask()
    await asyncio.sleep(stopping.ONE_WISH_SECONDS + 0.02)


async def test_the_first_wish_lets_jobs_go_on(actions: Actions) -> None:
    stop = build_stop(actions)
    assert not stop.is_stopping
    await ask(stop)
    assert stop.is_stopping
    assert actions.done == ["drain"]


async def test_each_further_wish_goes_one_further(actions: Actions) -> None:
    stop = build_stop(actions)
    for _ in range(4):
        await ask(stop)
    assert actions.done == ["drain", "hand_back", "abandon", "end"]


async def test_a_wish_that_arrives_twice_at_once_is_one(actions: Actions) -> None:
    stop = build_stop(actions)
    stop.ask()
    await ask(stop)
    assert actions.done == ["drain"]


async def test_after_the_grace_jobs_are_handed_back(actions: Actions) -> None:
    stop = build_stop(actions, grace_seconds=0.1)
    await ask(stop)
    assert actions.done == ["drain", "hand_back"]
    assert actions.at[1] - actions.at[0] == pytest.approx(0.1, abs=0.09)


async def test_every_stage_ends_by_itself(actions: Actions) -> None:
    loop = asyncio.get_running_loop()
    stop = OrderlyStop(loop, actions.build(), grace_seconds=0, record_seconds=0.02, close_seconds=0.02)
    stop.begin()
    await asyncio.sleep(0.2)
    assert actions.done == ["drain", "hand_back", "abandon", "end"]


def test_the_whole_way_is_shorter_than_llmyard_up_waits() -> None:
    assert stopping.RECORD_SECONDS + stopping.CLOSE_SECONDS < 10


async def test_an_end_of_its_own_does_not_go_back(actions: Actions) -> None:
    stop = build_stop(actions)
    await ask(stop)
    await ask(stop)
    stop.begin()
    await asyncio.sleep(0.01)
    assert actions.done == ["drain", "hand_back"]


async def test_beginning_anew_hands_back_at_once(actions: Actions) -> None:
    stop = build_stop(actions)
    stop.begin_anew()
    assert actions.done == ["drain", "hand_back"]
    assert stop.begins_anew


async def test_who_asks_for_the_end_gets_no_other_beginning(actions: Actions) -> None:
    stop = build_stop(actions)
    stop.begin_anew()
    await ask(stop)
    assert not stop.begins_anew


async def test_a_worker_that_ends_does_not_begin_anew(actions: Actions) -> None:
    stop = build_stop(actions)
    await ask(stop)
    stop.begin_anew()
    assert not stop.begins_anew
    assert actions.done == ["drain"]
