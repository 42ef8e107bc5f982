"""The sections as a page; pure."""

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from benchmarks.growth.section import Check, Section
from benchmarks.throughput.page import build_table


def build_report(sections: Sequence[Section]) -> str:
    return "\n\n".join(list_parts(sections)) + "\n"


def list_parts(sections: Sequence[Section]) -> Iterator[str]:
    yield "# Benchmarks: growth, start-up, idle"
    yield (
        "This page answers: what gets slower as work piles up, what a call in flight costs, how long a start takes, and"
        " what is used while there is nothing to do."
    )
    yield (
        f"`make bench-growth` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; all processes on this one machine."
    )
    yield "## What is to be reached"
    checks = [check for section in sections for check in section.checks]
    yield build_table(("figure", "measured", "wanted", ""), map(build_check, checks))
    for section in sections:
        yield f"## {section.title}"
        yield section.meaning
        yield build_table(section.headings, section.rows)


def build_check(check: Check) -> tuple[str, ...]:
    sign = "≥" if check.is_least else "≤"
    return check.title, f"{check.figure:.2f}", f"{sign} {check.bound:g}", "held" if check.is_held else "**missed**"
