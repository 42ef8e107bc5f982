"""Our programs as `llmyard up` starts them: worker, beat and API, each a process that shares nothing with this one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.parts import Program
from benchmarks.throughput.costs import measure_cpu
from benchmarks.throughput.stage import Stage
from benchmarks.throughput.systems import OURS, Crew
from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.data_directory import make_metrics_directory
from orchestrator.stack.ports import find_any_port
from orchestrator.stack.services import ServicePlan

NAMES = ("worker", "beat", "api")
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Started:
    """A program that is ready."""

    name: str
    program: Program
    seconds: float
    """From its start until it was ready."""
    cpu_seconds: float
    """In that time."""


@contextmanager
def start_all(stage: Stage) -> Iterator[tuple[Started, ...]]:
    """One after the other, on a fresh database; ended with the block."""
    database = stage.open_database(OURS)
    environment = {**stage.build_environment(database, Crew(1, 64)), "PYTHONUNBUFFERED": "1"}
    plan = build_plan(environment, stage.directory)
    started: list[Started] = []
    try:
        for spec in plan.services():
            if spec.name in NAMES:
                started.append(start(spec, stage.directory))
        yield tuple(started)
    finally:
        for each in reversed(started):
            each.program.end()
        database.drop()


def build_plan(environment: dict[str, str], directory: Path) -> ServicePlan:
    return ServicePlan(
        directory=directory,
        environment=environment,
        metrics_directory=make_metrics_directory(directory),
        api_port=find_any_port(),
        flower_port=find_any_port(),
        worker_grace_seconds=10.0,
    )


def start(spec: ChildSpec, log_directory: Path) -> Started:
    """
    Raises:
        RuntimeError: it died, or was not ready in time.
    """
    child = Child(spec, log_directory)
    program = Program(child)
    deadline = child.started_at + START_SECONDS
    while not child.is_ready():
        if not program.is_alive() or time.monotonic() > deadline:
            program.end()
            raise RuntimeError(f"{spec.name} did not start:\n{child.log_tail()}")
        time.sleep(0.02)
    return Started(spec.name, program, time.monotonic() - child.started_at, measure_cpu([child.pid]))
