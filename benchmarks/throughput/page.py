"""The tables, as text for a terminal and as the page; pure."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from benchmarks.throughput.latency import Latency
from benchmarks.throughput.record import Record
from benchmarks.throughput.scenarios import LATENCY_TITLE, SCENARIOS, Scenario
from benchmarks.throughput.systems import System
from benchmarks.throughput.targets import Check, check_targets

DRAIN_HEADINGS: Final = (
    "system", "jobs/s", "other rounds from", "CPU ms a job: workers", "Postgres", "Redis", "in all", "PSS MB",
    "peak in flight", "commits a job", "WAL bytes a job",
)  # fmt: skip
LATENCY_HEADINGS: Final = ("system", "5 jobs/s: p50 ms", "p99", "100 jobs/s: p50 ms", "p99")
MEANING: Final = """\
Every system does the same job: it asks the model server, a process of its own on the loopback, stores the answer in
Postgres, and the answer can be read by its id. For the peers that is one `insert` into a table of two columns, and
nothing of it outlives a kill beyond what the queue promises. llmyard keeps its whole ledger (message, job, run, lease,
attempt with its cost, result), sets the Celery result too, and goes through the pool, which shares cooldowns over
Redis and prices each call; no limit and no cap is set, and no metrics are served, as nothing is unless one says so.
The floor and the peers ask by aiohttp, the quickest client in general use; llmyard by the pool's own connections, which
cost a quarter of that ([why](decisions/0021-http-without-a-client.md)).

Jobs are enqueued while the workers are held still (SIGSTOP); the clock runs from the moment they are let go until
the last answer can be read. Of several rounds the best is shown, since whatever else goes on on a machine only
takes away, and the slowest beside it; a system that no target hangs on has one. A rate with `*` did not come to its
end in time: it is what was done by then. CPU is that of the worker processes, of Postgres and of Redis, user and
system, children included. Commits are those of `pg_stat_database` from the workers' start to their end, warm-up
included. asyncpg's pool adds one to each job of a peer, as it cleans a connection up when it gets it back.

Latency is seen by one poller, for all in the same way: every 2 ms it asks Postgres for the answers it waits for. The
clock starts before the client is told to enqueue."""


def build_page(record: Record, systems: tuple[System, ...], *, has_plot: bool) -> str:
    parts = [
        "# Benchmarks: beside other queues",
        "This page answers: how fast is it, what does a job cost, and how do others do the same job on this machine?",
        describe_run(record, systems),
        *(("![jobs a second, and CPU a job](benchmarks.png)",) if has_plot else ()),
        "## What is to be reached",
        build_table(("figure", "measured", "wanted", ""), map(build_check, check_targets(record))),
        "## How it is measured",
        MEANING,
        *build_scenarios(record, systems),
        *build_latencies(record, systems),
        "## Versions",
        "\n".join(f"- {system.title}: {list_versions(system)}" for system in systems),
        *describe_troubles(record),
    ]
    return "\n\n".join(parts) + "\n"


def describe_run(record: Record, systems: Sequence[System]) -> str:
    return (
        f"`make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; {len(systems)} systems in one run, their rounds in "
        f"turns. The model server alone answers {record.ceiling:,.0f} requests a second here."
    )


def build_scenarios(record: Record, systems: tuple[System, ...]) -> Iterable[str]:
    for scenario in SCENARIOS:
        rows = [build_drain_row(record, scenario, system) for system in record.systems_of(scenario, systems)]
        if rows:
            ideal = "" if scenario.ideal is None else f" (ideal: {scenario.ideal:,.0f} jobs/s)"
            yield f"## {scenario.title}{ideal}"
            yield build_table(DRAIN_HEADINGS, rows)


def build_drain_row(record: Record, scenario: Scenario, system: System) -> tuple[str, ...]:
    best, least = record.find_best(scenario, system), record.find_least_rate(scenario, system)
    assert best is not None and least is not None, "only systems that took part have a row"  # noqa: PT018 (no test)
    return (
        system.title,
        f"{best.jobs_per_second:,.0f}{'' if best.is_complete else '*'}",
        "–" if least == best.jobs_per_second else f"{least:,.0f}",
        f"{best.cost.workers_ms:.2f}",
        f"{best.cost.postgres_ms:.2f}",
        f"{best.cost.redis_ms:.2f}",
        f"{best.cost.all_ms:.2f}",
        f"{best.pss_mb:.0f}",
        f"{best.peak:,}" if scenario.delay_ms else "–",
        f"{best.commits:.2f}",
        f"{best.cost.wal_bytes:,.0f}",
    )


def build_latencies(record: Record, systems: Sequence[System]) -> Iterable[str]:
    rows = [
        (system.title, *build_latency_cells(record.find_latency(system, 5)),
         *build_latency_cells(record.find_latency(system, 100)))
        for system in systems
        if system.name in record.latencies
    ]  # fmt: skip
    if rows:
        yield f"## {LATENCY_TITLE}"
        yield build_table(LATENCY_HEADINGS, rows)


def build_latency_cells(latency: Latency | None) -> tuple[str, str]:
    if latency is None:
        return "–", "–"
    mark = "" if latency.answered == latency.asked else "*"
    return f"{latency.p50_ms:.1f}{mark}", f"{latency.p99_ms:.1f}{mark}"


def build_check(check: Check) -> tuple[str, ...]:
    sign = "≥" if check.target.is_least else "≤"
    return (
        check.target.title,
        f"{check.figure:.2f}",
        f"{sign} {check.target.bound:g}",
        "held" if check.is_held else "**missed**",
    )


def build_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, ("---",) * len(headings), *rows))


def list_versions(system: System) -> str:
    return ", ".join(f"{name} {version}" for name, version in system.versions.items())


def describe_troubles(record: Record) -> Sequence[str]:
    if not record.troubles:
        return ()
    return ("## What went wrong", "\n".join(f"- {trouble}" for trouble in record.troubles))
