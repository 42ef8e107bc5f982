"""What is measured: the scenarios, who takes part in each, and how much each of them is given to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput.drain import Load
from benchmarks.throughput.latency import Pace
from benchmarks.throughput.systems import BULK, FLOOR, OURS, SYSTEMS, Crew, System

TWO_PROCESSES: Final = Crew(2, 64)
ONE_PROCESS: Final = Crew(1, 2000)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One table of the page, whose figure is a rate."""

    number: int
    name: str
    """For the command line."""
    title: str
    crew: Crew
    delay_ms: float
    seconds: float
    """That each system should be busy, about."""
    rounds: int
    """At most; the short form has one."""
    takes_part: Callable[[System], bool]

    @property
    def ideal(self) -> float | None:
        """Jobs a second if every process always had all its jobs under way; None where the model takes no time."""
        if not self.delay_ms:
            return None
        return self.crew.processes * self.crew.in_flight / self.delay_ms * 1000

    def build_load(self, system: System, is_short: bool) -> Load:
        seconds = self.seconds * (0.6 if is_short else 1.0)
        return Load(self.crew, self._count_jobs(system, seconds), self.delay_ms, 3 * seconds + 5)

    def _count_jobs(self, system: System, seconds: float) -> int:
        """Where the model takes its time, a number that fills every process to the end."""
        jobs = max(20, int(self._expect(system) * seconds))
        wave = self.crew.processes * self.crew.in_flight
        return -(-jobs // wave) * wave if self.delay_ms and system.has_loop else jobs

    def _expect(self, system: System) -> float:
        """Jobs a second."""
        if self.delay_ms and not system.has_loop:
            return min(system.jobs_per_second, self.crew.processes / self.delay_ms * 1000)
        return min(system.jobs_per_second, self.ideal or system.jobs_per_second)


FAST: Final = 1000
"""Jobs a second of a peer that may be the best of them."""


def is_repeated(scenario: Scenario, system: System) -> bool:
    """A target hangs on it, so that one round is not enough."""
    return system in (OURS, BULK, FLOOR) or (scenario is AT_ONCE and system.jobs_per_second >= FAST)


def is_single(system: System) -> bool:
    return system is not BULK


AT_ONCE: Final = Scenario(
    1, "at-once", "The model answers at once: 2 processes, 64 jobs each", TWO_PROCESSES, 0, 5, 3, is_single
)
SLOW_MODEL: Final = Scenario(
    2, "200ms", "The model takes 200 ms: 2 processes, 64 jobs each", TWO_PROCESSES, 200, 8, 2, is_single
)
IN_BULK: Final = Scenario(
    3,
    "bulk",
    "Bulk work, the model answers at once: 2 processes, 64 jobs each",
    TWO_PROCESSES,
    0,
    4,
    3,
    lambda system: system in (BULK, FLOOR),
)
MANY: Final = Scenario(
    4,
    "2000",
    "The model takes 2 s: 1 process, 2,000 jobs",
    ONE_PROCESS,
    2000,
    30,
    2,
    lambda system: is_single(system) and system.has_loop,
)
SCENARIOS: Final = (AT_ONCE, SLOW_MODEL, IN_BULK, MANY)

LATENCY_NUMBER: Final = 5
LATENCY_NAME: Final = "latency"
LATENCY_TITLE: Final = "From enqueueing to an answer that can be read, the model answering at once"
LATENCY_CREW: Final = TWO_PROCESSES


def choose_paces(system: System, is_short: bool) -> Sequence[Pace]:
    """Nobody is given more than it can do."""
    paces = (Pace(5, 4 if is_short else 8), Pace(100, 4 if is_short else 6))
    return [pace for pace in paces if pace.rate < system.jobs_per_second]


def has_latency(system: System) -> bool:
    return system in SYSTEMS and system not in (BULK, FLOOR)
