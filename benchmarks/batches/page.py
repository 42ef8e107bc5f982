"""The tables, as text for a terminal and as the page; pure."""

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from benchmarks.batches.disturbed import BLOWS, DELAY_MS
from benchmarks.batches.measured import Costs, Measured
from benchmarks.batches.scene import CREW, LEASE_SECONDS
from benchmarks.throughput.page import build_table

CLIENT_MB: Final = 150
HEADINGS: Final = (
    "", "attempted", "lines in output", "lost", "doubled", "out of order", "failed or another's", "calls",
    "extra calls", "explained", "runs expired", "seconds", "lines/s", "client's peak RSS MB", "PSS MB", "",
)  # fmt: skip
COST_HEADINGS: Final = ("CPU of", "seconds", "ms a line")
MEANING: Final = f"""\
`llmyard batch run` reads a file of prompts and ends when every answer is in the output; {CREW.processes} workers of
`--concurrency {CREW.in_flight}` and a beat run before it is started. The clock runs from the client's start to its
end, so taking in, asking, and writing out are all in it. The model's answer names its question, so that each line of
the output is held against its line of the input; the model server counts how often each question was asked. An extra
call is explained when the ledger has a run or an attempt for it, of the same line."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured in one run."""

    undisturbed: Measured
    disturbed: Measured
    drained_per_second: float
    """Of the same workers where everything lies on the queue before they are let go."""

    @property
    def all(self) -> tuple[Measured, ...]:
        return self.undisturbed, self.disturbed


def build_page(report: Report) -> str:
    return "\n\n".join(list_parts(report)) + "\n"


def list_parts(report: Report) -> Iterator[str]:
    yield "# Benchmarks: a batch from file to file"
    yield "This page answers: how fast is a large batch from its start to its end, and what does it lose to kills?"
    yield describe_run(report)
    yield MEANING
    yield build_table(HEADINGS, map(build_row, report.all))
    yield from (f"**Missed**, {each.title}: {fault}." for each in report.all for fault in each.faults)
    yield "## Undisturbed"
    if report.undisturbed.costs is not None:
        yield describe_rate(report, report.undisturbed.costs)
        yield build_table(COST_HEADINGS, list_costs(report.undisturbed.costs, report.undisturbed.verdict.attempted))
    yield "## Killed"
    yield describe_kills()
    yield build_table(("killed", "from", "lines answered by then"), list_blows(report.disturbed))


def describe_run(report: Report) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("celery", "redis", "httptools", "asyncpg"))
    return (
        f"`make bench-batches` on {datetime.now(UTC):%Y-%m-%d}, {report.undisturbed.verdict.attempted:,} lines: "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{versions}; all processes on this one machine."
    )


def build_row(measured: Measured) -> tuple[str, ...]:
    verdict, output = measured.verdict, measured.verdict.output
    counts = (
        verdict.attempted, output.rows, len(output.lost), len(output.doubled), len(output.out_of_order),
        len(output.wrong), verdict.calls, verdict.extra_calls, verdict.explained_calls,
        verdict.ledger.outcomes.get("expired", 0),
    )  # fmt: skip
    figures = (measured.seconds, measured.lines_per_second, measured.client.rss_mb, measured.client.pss_mb)
    result = "**failed**" if measured.faults else "held"
    return (measured.title, *(f"{count:,}" for count in counts), *(f"{figure:,.0f}" for figure in figures), result)


def describe_rate(report: Report, costs: Costs) -> str:
    rate, drained = report.undisturbed.lines_per_second, report.drained_per_second
    memory = max(each.client.rss_mb for each in report.all)
    return (
        f"{rate:,.0f} lines a second from start to end. In the same run the same workers drained a queue that was "
        f"filled before at {drained:,.0f} jobs a second; with taking in and writing out on the same cores it is "
        f"{rate / drained:.2f} of that. The last line was taken in after {costs.taken_in_seconds:.1f} s, the last was "
        f"answered after {costs.answered_seconds:.1f} s, and the client ended after {report.undisturbed.seconds:.1f} s."
        f" The client's peak is {memory:.0f} MB of at most {CLIENT_MB}: "
        f"{'held' if memory <= CLIENT_MB else '**missed**'}."
    )


def list_costs(costs: Costs, lines: int) -> Sequence[tuple[str, ...]]:
    seconds = {
        "client": costs.client,
        "workers and beat": costs.workers,
        "Postgres": costs.postgres,
        "Redis": costs.redis,
    }
    return [(name, f"{used:.1f}", f"{used / lines * 1e3:.3f}") for name, used in seconds.items()]


def describe_kills() -> str:
    order = "; ".join(f"from {share:.0%} on {', '.join(names)}" for share, names in BLOWS)
    return (
        f"With SIGKILL, and started again at once with the same command: {order}. The model takes {DELAY_MS:.0f} ms "
        f"here, so that a worker dies with calls under way, and a lease is {LEASE_SECONDS:.0f} s, so that what it held "
        "is soon given to another; 30 s is usual. The seconds in the table have that wait in them, and the starts."
    )


def list_blows(measured: Measured) -> Iterator[tuple[str, ...]]:
    for blow in measured.blows:
        yield blow.name, f"{blow.share:.0%}", f"{blow.answered / measured.verdict.attempted:.0%}"
