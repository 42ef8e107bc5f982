"""One run: rounds in turns, so that whatever else the machine does strikes everybody alike, within a bound of time."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.throughput.drain import measure_drain
from benchmarks.throughput.latency import measure_latency
from benchmarks.throughput.record import Record
from benchmarks.throughput.scenarios import (
    LATENCY_CREW,
    LATENCY_NAME,
    LATENCY_NUMBER,
    SCENARIOS,
    Scenario,
    choose_paces,
    has_latency,
    is_repeated,
)
from benchmarks.throughput.stage import Stage
from benchmarks.throughput.systems import System

CEILING = Path(__file__).parent / "ceiling.py"
CEILING_CALLS = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    systems: tuple[System, ...]
    numbers: frozenset[int]
    """Of the scenarios."""
    rounds: int
    is_short: bool
    seconds: float
    """Once this has passed no further round is begun, save the first."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement."""

    name: str
    measure: Callable[[], None]
    is_first: bool
    """Of its kind: made even when time runs out."""


def run(stage: Stage, plan: Plan) -> Record:
    record = Record(measure_ceiling(stage))
    print(f"the model server answers {record.ceiling:,.0f} requests a second", flush=True)
    deadline = time.monotonic() + plan.seconds
    for step in build_steps(stage, plan, record):
        if step.is_first or time.monotonic() < deadline:
            take(step, record)
    return record


def take(step: Step, record: Record) -> None:
    """A measurement that breaks off is told in the page, and the others are still made."""
    started_at = time.monotonic()
    try:
        step.measure()
    except (RuntimeError, TimeoutError, OSError, subprocess.SubprocessError, ZeroDivisionError) as error:
        record.troubles.append(f"{step.name}: {error}")
        print(f"{step.name} broke off: {error}", flush=True)
    print(f"{step.name} ({time.monotonic() - started_at:.0f} s)", flush=True)


def build_steps(stage: Stage, plan: Plan, record: Record) -> Iterator[Step]:
    for number in range(plan.rounds):
        for scenario in SCENARIOS:
            if scenario.number in plan.numbers and number < scenario.rounds:
                systems = turn(choose_systems(scenario, plan.systems, number), number)
                yield from (build_drain_step(stage, plan, record, scenario, system, number) for system in systems)
        if number == 0 and LATENCY_NUMBER in plan.numbers:
            yield from (build_latency_step(stage, plan, record, system) for system in filter(has_latency, plan.systems))


def choose_systems(scenario: Scenario, systems: Iterable[System], number: int) -> Iterator[System]:
    """Who takes part in this round."""
    return (
        system for system in systems if scenario.takes_part(system) and (number == 0 or is_repeated(scenario, system))
    )


def turn(systems: Iterable[System], number: int) -> Sequence[System]:
    """Nobody always comes first."""
    found = tuple(systems)
    return found[number % len(found) :] + found[: number % len(found)] if found else found


def build_drain_step(stage: Stage, plan: Plan, record: Record, scenario: Scenario, system: System, number: int) -> Step:
    def measure() -> None:
        drained = measure_drain(stage, system, scenario.build_load(system, plan.is_short))
        record.add(scenario, system, drained)
        print(
            f"  {drained.jobs_per_second:,.0f} jobs/s, {drained.cost.workers_ms:.2f} ms CPU a job,"
            f" {drained.commits:.2f} commits, {drained.pss_mb:.0f} MB, {drained.peak} in flight",
            flush=True,
        )

    return Step(f"{scenario.name}, round {number + 1}: {system.name}", measure, number == 0)


def build_latency_step(stage: Stage, plan: Plan, record: Record, system: System) -> Step:
    def measure() -> None:
        paces = choose_paces(system, plan.is_short)
        found = measure_latency(stage, system, LATENCY_CREW, paces)
        record.latencies[system.name] = list(zip(paces, found, strict=True))
        for pace, latency in record.latencies[system.name]:
            print(f"  {pace.rate:g} jobs/s: p50 {latency.p50_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms", flush=True)

    return Step(f"{LATENCY_NAME}: {system.name}", measure, is_first=True)


def measure_ceiling(stage: Stage) -> float:
    stage.begin_model(0)
    command = (sys.executable, str(CEILING), str(stage.model_port), str(CEILING_CALLS))
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
