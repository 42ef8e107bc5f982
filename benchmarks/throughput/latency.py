"""From enqueueing to an answer that can be read, on a system with little to do.

Everybody is watched in the same way: a poller asks Postgres for the answers it waits for, every 2 ms over one
connection. Some of these queues have a way of their own to wait for a result, some have none, and the answer in
Postgres is what all of them promise here. The clock starts before the client is told to enqueue.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import quantiles
from typing import Final

from benchmarks.throughput.fleet import Fleet, Sender
from benchmarks.throughput.observer import Observer, open_observer
from benchmarks.throughput.stage import Database, Stage
from benchmarks.throughput.systems import Crew, System
from benchmarks.throughput.warm_up import FIRST, warm_up

LOOK_SECONDS: Final = 0.002
WINDOW: Final = 100
"""Answers that are looked for at a time, from the first that has not come."""
LAST_SECONDS: Final = 5.0
SEND_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How jobs come."""

    rate: float
    """A second."""
    seconds: float

    @property
    def jobs(self) -> int:
        return int(self.rate * self.seconds)


@dataclass(frozen=True, slots=True)
class Latency:
    """What came of a pace."""

    p50_ms: float
    p99_ms: float
    answered: int
    asked: int


def measure_latency(stage: Stage, system: System, crew: Crew, paces: Sequence[Pace]) -> list[Latency]:
    """One for each pace, of the same worker processes."""
    database = stage.open_database(system)
    environment = stage.build_environment(database, crew)
    with Fleet(system, crew, environment, stage.directory) as fleet:
        found = asyncio.run(observe(stage, fleet, database, paces))
    database.drop()
    return found


async def observe(stage: Stage, fleet: Fleet, database: Database, paces: Sequence[Pace]) -> list[Latency]:
    found = []
    async with open_observer(stage, fleet, database) as observer:
        first = FIRST + await warm_up(observer)
        for pace in paces:
            found.append(await follow(observer, pace, first))
            first += pace.jobs + 1
    return found


async def follow(observer: Observer, pace: Pace, first: int) -> Latency:
    """The first job only opens the sender's connections, and is not counted."""
    sender = observer.fleet.start_enqueueing(first, pace.jobs + 1, pace.rate)
    seen = await watch(observer, sender, range(first, first + pace.jobs + 1))
    sent = json.loads(sender.communicate(SEND_SECONDS))
    waited = [(seen[number] - at) * 1e3 for number, at in enumerate(sent, start=first + 1) if number in seen]
    cuts = quantiles(waited, n=100, method="inclusive")
    return Latency(cuts[49], cuts[98], len(waited), pace.jobs)


async def watch(observer: Observer, sender: Sender, numbers: range) -> dict[int, float]:
    """When each answer was first seen, by the monotonic clock."""
    waiting, seen = dict.fromkeys(numbers), dict[int, float]()
    deadline = None
    while waiting and (deadline is None or time.monotonic() < deadline):
        found = await observer.find(list(islice(waiting, WINDOW)))
        now = time.monotonic()
        for number in found:
            del waiting[number]
            seen[number] = now
        if deadline is None and sender.is_done():
            deadline = now + LAST_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
    return seen
