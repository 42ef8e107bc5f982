"""One measurement of a rate: a queue full of jobs, workers that are let go, and the clock until the last answer."""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.throughput.costs import Cost, compare
from benchmarks.throughput.fleet import Fleet
from benchmarks.throughput.observer import Observer, open_observer
from benchmarks.throughput.stage import Database, Stage
from benchmarks.throughput.systems import Crew, System
from benchmarks.throughput.warm_up import FIRST, warm_up

LOOK_SECONDS: Final = 0.05
LAST_LOOK_SECONDS: Final = 0.005
MEMORY_EVERY_SECONDS: Final = 0.7


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be done."""

    crew: Crew
    jobs: int
    delay_ms: float
    """That the model takes for an answer."""
    deadline_seconds: float
    """Then the rate is what was done by then."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of it."""

    jobs: int
    """Answered within the time."""
    asked: int
    warm: int
    """Jobs that were answered before the clock began."""
    records: int
    """Jobs whose record is whole, those of the warm-up included."""
    seconds: float
    cost: Cost
    commits: float
    """A job; of the worker processes' whole life, their start and warm-up included."""
    pss_mb: float
    """At most, of all worker processes."""
    peak: int
    """Requests together at the model."""
    calls: int
    """Requests at the model; more than `jobs` if some were asked twice."""

    @property
    def jobs_per_second(self) -> float:
        return self.jobs / self.seconds

    @property
    def is_complete(self) -> bool:
        """Everything was answered in time."""
        return self.jobs == self.asked

    @property
    def is_wrong(self) -> bool:
        """Everything was answered, and yet a record is missing or a job was asked twice."""
        return self.is_complete and (self.records != self.jobs + self.warm or self.calls != self.jobs)


def measure_drain(stage: Stage, system: System, load: Load) -> Drained:
    database = stage.open_database(system)
    environment = stage.build_environment(database, load.crew)
    with Fleet(system, load.crew, environment, stage.directory) as fleet:
        drained, statements = asyncio.run(observe(stage, fleet, database, load))
    commits = database.count_commits() - statements
    database.drop()
    return replace(drained, commits=commits / max(1, drained.records))


async def observe(stage: Stage, fleet: Fleet, database: Database, load: Load) -> tuple[Drained, int]:
    """The figures, and the statements that looking cost."""
    async with open_observer(stage, fleet, database) as observer:
        drained = await drain(observer, load, await warm_up(observer))
        return drained, observer.statements


async def drain(observer: Observer, load: Load, warm: int) -> Drained:
    fleet, stage = observer.fleet, observer.stage
    fleet.pause()
    fleet.enqueue(FIRST + warm, load.jobs)
    stage.begin_model(load.delay_ms)
    before = await observer.read()
    fleet.resume()
    pss_mb = await watch(observer, load, before.at + load.deadline_seconds)
    jobs = await wait_for_rows(observer, load.jobs, warm, before.at + load.deadline_seconds)
    after = await observer.read()
    counts = stage.count_model()
    cost = compare(before, after, max(1, jobs))
    records = await observer.count_records()
    return Drained(
        jobs, load.jobs, warm, records, after.at - before.at, cost, 0.0, pss_mb, counts.peak, counts.requests
    )


async def watch(observer: Observer, load: Load, deadline: float) -> float:
    """Until the model has answered everything; asks nobody but the model. Gives the most memory seen, in MB."""
    pss_mb, next_look = 0.0, time.monotonic() + MEMORY_EVERY_SECONDS / 2
    while observer.stage.count_model().answered < load.jobs and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        if time.monotonic() > next_look:
            observer.fleet.check()
            pss_mb = max(pss_mb, observer.fleet.measure_pss_mb())
            next_look = time.monotonic() + MEMORY_EVERY_SECONDS
    return pss_mb or observer.fleet.measure_pss_mb()


async def wait_for_rows(observer: Observer, jobs: int, warm: int, deadline: float) -> int:
    """Answers that can be read, beyond those of the warm-up."""
    answered = await observer.count() - warm
    while answered < jobs and time.monotonic() < deadline:
        await asyncio.sleep(LAST_LOOK_SECONDS)
        answered = await observer.count() - warm
    return answered
