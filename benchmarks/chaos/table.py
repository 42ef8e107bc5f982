"""The chaos table, as text and as a page; pure."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from benchmarks.chaos.bench import Finding, Row

HEADINGS = (
    "row", "attempted", "acknowledged", "answered", "lost", "duplicated", "unexpected", "unheard", "provider calls",
    "extra calls", "explained", "cost in ledger", "server's bill", "recovery", "result",
)  # fmt: skip

TOLD = re.compile(r"^(?P<kind>\| |- \*\*)(?P<number>\d+)(?: \||\*\* )")
"""A row's line of figures, or its line of notes, in a report."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row that has run."""

    row: Row
    finding: Finding
    seconds: float


def build_cells(line: Line) -> tuple[str, ...]:
    verdict, recovery = line.finding.verdict, line.finding.recovery_seconds
    ending = ("–" if recovery is None else f"{recovery:.1f} s", choose_result(line.finding))
    if verdict is None:
        return (str(line.row.number), *("–",) * 12, *ending)
    counts = (
        verdict.attempted, verdict.acknowledged, verdict.answered, len(verdict.lost), len(verdict.duplicated),
        len(verdict.unexpected), len(verdict.unheard), verdict.calls, verdict.extra_calls, verdict.explained_calls,
    )  # fmt: skip
    money = (f"${verdict.ledger_usd:.6f}", f"${verdict.bill_usd:.6f}")
    return (str(line.row.number), *(f"{count:,}" for count in counts), *money, *ending)


def choose_result(finding: Finding) -> str:
    if finding.faults:
        return "**failed**"
    return "not run" if finding.is_not_run else "held"


def build_table(lines: Sequence[Line]) -> str:
    return "\n".join((build_headings(), *(join_cells(build_cells(line)) for line in lines)))


def build_headings() -> str:
    return f"{join_cells(HEADINGS)}\n{join_cells(('---',) * len(HEADINGS))}"


def join_cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def describe(line: Line) -> str:
    """What was done, n, when, and what did not hold."""
    faults = "".join(f" **Missed:** {fault}." for fault in line.finding.faults)
    run = f"{line.seconds:.0f} s, {datetime.now(UTC):%Y-%m-%d}"
    return f"- **{line.row.number}** {line.row.title}: {line.finding.notes} ({run}).{faults}"


def build_report(lines: Sequence[Line], *, seed: int, is_long: bool) -> str:
    form = "long" if is_long else "short"
    versions = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis", "asyncpg"))
    return "\n".join(
        (
            f"The {form} form on {datetime.now(UTC):%Y-%m-%d}, seed {seed}: {os.cpu_count()} cores, "
            f"{platform.system()}, Python {platform.python_version()}, {versions}.",
            "",
            build_table(lines),
            "",
            *map(describe, lines),
        )
    )


def merge_reports(old: str, new: str) -> str:
    """`new`, and with it the rows of `old` that were not run again. What else stood in `old` is left out."""
    told = pick_lines(old) | pick_lines(new)
    if not told:
        return new
    heading, _, _ = new.partition("\n\n")
    figures, notes = ([told[key] for key in sorted(told) if key[0] == kind] for kind in ("| ", "- **"))
    return "\n".join((heading, "", build_headings(), *figures, "", *notes))


def pick_lines(report: str) -> dict[tuple[str, int], str]:
    found = ((TOLD.match(line), line) for line in report.splitlines())
    return {(match["kind"], int(match["number"])): line for match, line in found if match}
