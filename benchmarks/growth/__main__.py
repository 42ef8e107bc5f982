"""Measures part after part, prints the page, and writes it; with `--strict` a missed figure is exit status 1."""

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from benchmarks.growth.backlog import measure_backlog
from benchmarks.growth.idle import measure_idle
from benchmarks.growth.in_flight import measure_in_flight
from benchmarks.growth.report import build_report
from benchmarks.growth.section import Scale, Section
from benchmarks.growth.start_up import measure_start_up
from benchmarks.throughput.stage import Stage

PARTS: Final[Mapping[str, Callable[[Scale], Section]]] = {
    "idle": measure_idle,
    "start-up": measure_start_up,
    "in-flight": measure_in_flight,
    "backlog": measure_backlog,
}
"""In their order: what is measured at rest comes before what leaves Postgres busy."""


def main() -> int:
    options = read_options()
    names = choose_parts(options.parts)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    directory = Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        with Stage(directory) as stage:
            sections = [measure(name, Scale(stage, options.short)) for name in names]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report = build_report(sections)
    print(report)
    if options.write is not None:
        options.write.write_text(report, encoding="utf-8")
    return int(options.strict and any(not check.is_held for section in sections for check in section.checks))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--parts", default="", help=f"of {','.join(PARTS)}; without it all")
    parser.add_argument("--short", action="store_true", help="up to 100,000 jobs and 512 calls; 10 s of rest")
    parser.add_argument("--strict", action="store_true", help="a missed figure is an error")
    parser.add_argument("--write", type=Path, help="page to write")
    return parser.parse_args()


def choose_parts(wanted: str) -> Sequence[str]:
    """Raises: SystemExit: no such part."""
    names = [name for name in wanted.split(",") if name]
    unknown = set(names) - PARTS.keys()
    if unknown:
        raise SystemExit(f"There is no {min(unknown)}: there are {', '.join(PARTS)}.")
    return [name for name in PARTS if name in names or not names]


def measure(name: str, scale: Scale) -> Section:
    print(f"{name} …", flush=True)
    began_at = time.monotonic()
    section = PARTS[name](scale)
    print(f"{name}: {time.monotonic() - began_at:.0f} s", flush=True)
    return section


if __name__ == "__main__":
    sys.exit(main())
