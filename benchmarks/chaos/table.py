"""The chaos table, as text and as a page; pure."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from benchmarks.chaos.bench import Finding, Row

HEADINGS = (
    "row", "attempted", "acknowledged", "answered", "lost", "duplicated", "unexpected", "unheard", "provider calls",
    "extra calls", "explained", "cost in ledger", "server's bill", "recovery", "result",
)  # fmt: skip


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
    rows = (HEADINGS, ("---",) * len(HEADINGS), *map(build_cells, lines))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def describe(line: Line) -> str:
    """What was done, n, and what did not hold."""
    faults = "".join(f" **Missed:** {fault}." for fault in line.finding.faults)
    return f"- **{line.row.number}** {line.row.title}: {line.finding.notes} ({line.seconds:.0f} s).{faults}"


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
