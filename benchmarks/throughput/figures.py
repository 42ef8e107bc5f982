"""What the plot shows, as plain data for the program that draws it."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput.drain import Drained
from benchmarks.throughput.environments import make_environment
from benchmarks.throughput.record import Record
from benchmarks.throughput.scenarios import AT_ONCE, IN_BULK, SLOW_MODEL, Scenario
from benchmarks.throughput.systems import BULK, System

PROGRAM = Path(__file__).parent / "plot.py"


def draw_plot(record: Record, systems: tuple[System, ...], title: str, plot: Path, directory: Path) -> None:
    """Into the file `plot`; `directory` holds the figures on their way."""
    panels = [panel for panel in build_panels(record, systems) if panel["bars"]]
    file = directory / "figures.json"
    file.write_text(json.dumps({"title": title, "panels": panels}), encoding="utf-8")
    python = make_environment("plot") / "python"
    subprocess.run((str(python), str(PROGRAM), str(file), str(plot)), check=True)


def build_panels(record: Record, systems: tuple[System, ...]) -> Iterator[dict[str, Any]]:
    for scenario in (AT_ONCE, SLOW_MODEL):
        bars = build_bars(record, scenario, systems, lambda drained: drained.jobs_per_second, "{:,.0f}")
        if scenario is AT_ONCE:
            bars = [*build_bars(record, IN_BULK, (BULK,), lambda drained: drained.jobs_per_second, "{:,.0f}"), *bars]
        yield {"title": scenario.title, "unit": "jobs/s", "bars": bars}
    costs = build_bars(record, AT_ONCE, systems, lambda drained: drained.cost.workers_ms, "{:.2f}")
    yield {"title": "CPU of the workers, the model at once", "unit": "ms a job", "bars": costs}


def build_bars(
    record: Record,
    scenario: Scenario,
    systems: Sequence[System],
    read: Callable[[Drained], float],
    form: str,
) -> list[dict[str, Any]]:
    found = ((system, record.find_best(scenario, system)) for system in systems)
    return [
        {"name": system.short_title, "value": read(best), "label": form.format(read(best))}
        for system, best in found
        if best is not None
    ]
