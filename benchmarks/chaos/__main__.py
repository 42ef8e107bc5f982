"""Runs the rows one after the other and prints the table; exit status 1 if one of them did not hold."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.rows import ROWS
from benchmarks.chaos.table import Line, build_report, describe, merge_reports

BEGIN, END = "<!-- {form} form -->", "<!-- end of {form} form -->"
"""Of the page's two tables."""


def main() -> int:
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every part is ended
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        bench = Bench(directory, seed=options.seed, is_long=options.long, is_kept=options.keep)
        lines = [run_row(row, bench) for row in choose_rows(options.rows)]
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    report = build_report(lines, seed=options.seed, is_long=options.long)
    print(report)
    if options.write:
        write_between_marks(options.write, "long" if options.long else "short", report)
    return choose_status([line.finding for line in lines], is_lenient=options.lenient)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--rows", default="", help="such as 1,2,5; without it all")
    parser.add_argument("--long", action="store_true", help="the long form: larger n, longer outages")
    parser.add_argument("--seed", type=int, default=1, help="chooses the faults")
    parser.add_argument("--lenient", action="store_true", help="rates and waits may be missed, as on a shared machine")
    parser.add_argument("--keep", action="store_true", help="leave logs and records in the temporary directory")
    parser.add_argument("--write", type=Path, help="page whose table of this form gets these rows")
    return parser.parse_args()


def choose_status(findings: Sequence[Finding], *, is_lenient: bool) -> int:
    """What went wrong fails; what was missed only where nobody else uses the machine."""
    return int(any(finding.is_wrong if is_lenient else finding.faults for finding in findings))


def choose_rows(wanted: str) -> Sequence[Row]:
    numbers = {int(number) for number in wanted.split(",") if number}
    unknown = numbers - {row.number for row in ROWS}
    if unknown:
        raise SystemExit(f"There is no row {min(unknown)}: there are {', '.join(str(row.number) for row in ROWS)}.")
    return [row for row in ROWS if row.number in numbers or not numbers]


def run_row(row: Row, bench: Bench) -> Line:
    """A row that breaks off has a second try, and if that does too it did not hold; the others still run."""
    first = try_row(row, bench)
    return try_row(row, bench) if first.finding.is_broken_off else first


def try_row(row: Row, bench: Bench) -> Line:
    print(f"row {row.number}: {row.title} …", flush=True)
    started_at = time.monotonic()
    bench.begin(row.number)
    try:
        finding = row.run(bench)
    except Exception as error:  # noqa: BLE001 (told in the table, and the other rows still run)
        traceback.print_exc()
        finding = Finding(None, "broken off", wrong=(f"{type(error).__name__}: {error}",), is_broken_off=True)
    line = Line(row, finding, time.monotonic() - started_at)
    print(describe(line), flush=True)
    return line


def write_between_marks(page: Path, form: str, report: str) -> None:
    begin, end = BEGIN.format(form=form), END.format(form=form)
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    old, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{merge_reports(old, report)}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
