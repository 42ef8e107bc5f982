"""Measures, prints the page, and writes it; a line that is lost, doubled or out of order is exit status 1."""

import argparse
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

import structlog

from benchmarks.batches.disturbed import measure_disturbed
from benchmarks.batches.page import Report, build_page
from benchmarks.batches.scene import Load
from benchmarks.batches.undisturbed import measure_drain_rate, measure_undisturbed
from benchmarks.throughput.stage import Stage

LINES: Final = 100_000
SHORT_LINES: Final = 5_000
LEAST_SECONDS: Final = 60.0
SECONDS_A_LINE: Final = 0.0012
"""Of each part at most: three parts of 100,000 lines end within 10 minutes."""


def main() -> int:
    options = read_options()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    directory = Path(tempfile.mkdtemp(prefix="batches-"))
    try:
        report = measure(directory, SHORT_LINES if options.short else options.lines)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    page = build_page(report)
    print(page)
    if options.write is not None:
        options.write.write_text(page, encoding="utf-8")
    return int(any(measured.faults for measured in report.all))


def measure(directory: Path, lines: int) -> Report:
    load = Load(lines, LEAST_SECONDS + lines * SECONDS_A_LINE)
    with Stage(directory) as stage:
        print("a queue that was filled before …", flush=True)
        drained_per_second = measure_drain_rate(stage, load)
        print("undisturbed …", flush=True)
        undisturbed = measure_undisturbed(stage, load)
        print("with kills …", flush=True)
        return Report(undisturbed, measure_disturbed(stage, load), drained_per_second)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    parser.add_argument("--lines", type=int, default=LINES, help=f"of the input; {LINES:,} without it")
    parser.add_argument("--short", action="store_true", help=f"{SHORT_LINES:,} lines")
    parser.add_argument("--write", type=Path, help="page to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
