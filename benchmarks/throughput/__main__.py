"""Measures, prints the tables, and writes the page and the plot; exit status 1 if something came out wrong."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.throughput.figures import draw_plot
from benchmarks.throughput.page import build_page, describe_run
from benchmarks.throughput.record import Record
from benchmarks.throughput.run import Plan, run
from benchmarks.throughput.scenarios import LATENCY_NAME, LATENCY_NUMBER, SCENARIOS
from benchmarks.throughput.stage import Stage
from benchmarks.throughput.systems import FLOOR, OURS, SYSTEMS, TASKIQ, System
from benchmarks.throughput.targets import check_targets

NUMBERS: Final = {scenario.name: scenario.number for scenario in SCENARIOS} | {LATENCY_NAME: LATENCY_NUMBER}
SHORT_SYSTEMS: Final = (OURS, FLOOR, TASKIQ)
SHORT_NUMBERS: Final = frozenset({1, 2, 5})
LONG_SECONDS: Final = 1100.0
SHORT_SECONDS: Final = 150.0


def main() -> int:
    options = read_options()
    plan = build_plan(options)
    for system in plan.systems:
        print(f"{system.name}: {', '.join(f'{name} {version}' for name, version in system.versions.items())}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with Stage(directory) as stage:
            record = run(stage, plan)
        page = build_page(record, plan.systems, has_plot=options.write is not None)
        print(page)
        if options.write is not None:
            write(options.write, page, record, plan, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    missed = options.strict and any(not check.is_held for check in check_targets(record))
    return 1 if record.troubles or missed else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    names = ",".join(system.name for system in SYSTEMS)
    parser.add_argument("--only", default="", help=f"systems, of {names}; without it all")
    parser.add_argument("--scenarios", default="", help=f"by number or name, of {', '.join(NUMBERS)}; without it all")
    parser.add_argument("--rounds", type=int, default=3, help="at most so many of each; the best is shown")
    parser.add_argument("--short", action="store_true", help="one short round of ours, the floor and taskiq")
    parser.add_argument("--strict", action="store_true", help="a missed target is an error too")
    parser.add_argument("--write", type=Path, help="directory for benchmarks.md and benchmarks.png")
    return parser.parse_args()


def build_plan(options: argparse.Namespace) -> Plan:
    everybody, everything = (SHORT_SYSTEMS, SHORT_NUMBERS) if options.short else (SYSTEMS, frozenset(NUMBERS.values()))
    return Plan(
        choose_systems(options.only) or everybody,
        choose_numbers(options.scenarios) or everything,
        1 if options.short else options.rounds,
        options.short,
        SHORT_SECONDS if options.short else LONG_SECONDS,
    )


def choose_systems(wanted: str) -> tuple[System, ...]:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = set(names) - {system.name for system in SYSTEMS}
    if unknown:
        raise SystemExit(f"There is no {min(unknown)}: there are {', '.join(system.name for system in SYSTEMS)}.")
    return tuple(system for system in SYSTEMS if system.name in names)


def choose_numbers(wanted: str) -> frozenset[int]:
    known = NUMBERS | {str(number): number for number in NUMBERS.values()}
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = set(names) - known.keys()
    if unknown:
        raise SystemExit(f"There is no scenario {min(unknown)}: there are {', '.join(known)}.")
    return frozenset(known[name] for name in names)


def write(folder: Path, page: str, record: Record, plan: Plan, directory: Path) -> None:
    (folder / "benchmarks.md").write_text(page, encoding="utf-8")
    title = describe_run(record, plan.systems).replace("`", "")
    draw_plot(record, plan.systems, title, folder / "benchmarks.png", directory)


if __name__ == "__main__":
    sys.exit(main())
