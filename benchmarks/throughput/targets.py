"""What is to be reached, as ratios within one run; pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput.record import Record
from benchmarks.throughput.scenarios import AT_ONCE, IN_BULK, MANY, SLOW_MODEL
from benchmarks.throughput.systems import BULK, OURS


@dataclass(frozen=True, slots=True)
class Target:
    """One figure and its bound."""

    title: str
    bound: float
    is_least: bool
    """The figure has to be at least the bound; otherwise at most."""
    measure: Callable[[Record], float | None]
    """None where this run did not measure it."""

    def is_held_by(self, figure: float) -> bool:
        return figure >= self.bound if self.is_least else figure <= self.bound


@dataclass(frozen=True, slots=True)
class Check:
    """A target and what was measured."""

    target: Target
    figure: float

    @property
    def is_held(self) -> bool:
        return self.target.is_held_by(self.figure)


def divide(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def at_latency(percentile: str) -> Callable[[Record], float | None]:
    def measure(record: Record) -> float | None:
        found = record.find_latency(OURS, 100)
        return None if found is None else {"p50": found.p50_ms, "p99": found.p99_ms}[percentile]

    return measure


def measure_memory(record: Record) -> float | None:
    best = record.find_best(MANY, OURS)
    return None if best is None else best.pss_mb


def measure_commits(record: Record) -> float | None:
    best = record.find_best(AT_ONCE, OURS)
    return None if best is None else best.commits


TARGETS: Final = (
    Target(
        "single jobs, model at once: ours / best peer",
        1.2,
        True,
        lambda record: divide(record.find_rate(AT_ONCE, OURS), record.find_best_peer_rate(AT_ONCE)),
    ),
    Target(
        "single jobs, model takes 200 ms: ours / floor",
        0.95,
        True,
        lambda record: divide(record.find_rate(SLOW_MODEL, OURS), record.find_floor_rate(SLOW_MODEL)),
    ),
    Target(
        "bulk, model at once: ours / floor",
        0.5,
        True,
        lambda record: divide(record.find_rate(IN_BULK, BULK), record.find_floor_rate(IN_BULK)),
    ),
    Target(
        "bulk, model at once: ours / best peer's single jobs",
        4.0,
        True,
        lambda record: divide(record.find_rate(IN_BULK, BULK), record.find_best_peer_rate(AT_ONCE)),
    ),
    Target(
        "2,000 calls of 2 s in one process: ours / ideal",
        0.9,
        True,
        lambda record: divide(record.find_rate(MANY, OURS), MANY.ideal),
    ),
    Target("the same, memory (PSS, MB)", 300.0, False, measure_memory),
    Target("enqueue to answer at 100 jobs/s, p50 (ms)", 8.0, False, at_latency("p50")),
    Target("enqueue to answer at 100 jobs/s, p99 (ms)", 25.0, False, at_latency("p99")),
    Target("commits per job under load", 0.15, False, measure_commits),
)


def check_targets(record: Record) -> Iterator[Check]:
    """Those that this run measured."""
    for target in TARGETS:
        figure = target.measure(record)
        if figure is not None:
            yield Check(target, figure)
