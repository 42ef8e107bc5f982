"""How batches look on a terminal: a bar while one runs, tables afterwards; plain lines where nobody looks."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.batches.desk import Overview
from orchestrator.batches.progress import Progress
from orchestrator.batches.records import Batch
from orchestrator.cli.status import describe_seconds

_BAR_SECONDS: Final = 0.5
_LINE_SECONDS: Final = 10.0
_BAR_WIDTH: Final = 30
_WIDTH_WHEN_NOT_A_TERMINAL: Final = 160


@contextmanager
def open_display() -> Iterator[Callable[[Progress], None]]:
    """On standard error, so that output and words do not mix. What it is told last is shown in any case."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Throttled(lambda progress: print(describe(progress), file=console.file, flush=True), _LINE_SECONDS)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield _Throttled(lambda progress: live.update(_build_bar(progress), refresh=True), _BAR_SECONDS)


class _Throttled:
    """Shows what it is told, so often at most; and the end."""

    def __init__(self, show: Callable[[Progress], None], every_seconds: float) -> None:
        self._show = show
        self._every_seconds = every_seconds
        self._next_at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next_at or progress.written == progress.total:
            self._next_at = now + self._every_seconds
            self._show(progress)


def describe(progress: Progress) -> str:
    """One line of text."""
    return " · ".join(_list_parts(progress))


def _list_parts(progress: Progress) -> Iterator[str]:
    total = "…" if progress.total is None else f"{progress.total:,}"
    yield f"{progress.finished:,} of {total} lines"
    if progress.total is None:
        yield f"{progress.imported:,} taken in"
    if progress.lines_per_second:
        yield f"{progress.lines_per_second:,.1f} a second"
    if progress.seconds_left:
        yield f"{describe_seconds(progress.seconds_left)} left"
    yield f"{progress.tokens:,} tokens"
    yield f"{progress.cost_usd:.4f} USD"
    yield f"{progress.failed:,} failed"


def _build_bar(progress: Progress) -> Table:
    bar = ProgressBar(total=progress.total or max(progress.imported, 1), completed=progress.finished, width=_BAR_WIDTH)
    grid = Table.grid(padding=(0, 1))
    grid.add_row(bar, Text(describe(progress)))
    return grid


def build_view(batch: Batch, overview: Overview | None = None) -> dict[str, Any]:
    """JSON of a batch, with what has come of it where that was read."""
    view = {name: value for name, value in asdict(batch).items() if name != "settled_lines"}
    if overview is None:
        return view
    reasons = [{"type": type_, "lines": lines, "example": example} for type_, lines, example in overview.reasons]
    return view | asdict(overview.totals) | {"reasons": reasons}


def print_batches(batches: Sequence[Batch]) -> None:
    table = _build_table("batch", "file", "state", "lines", "begun", "limit")
    for batch in batches:
        lines = f"{batch.imported_lines:,}" if batch.parent_id is None else "some, again"
        limit = "" if batch.limit_usd is None else f"{batch.limit_usd.normalize():f} USD"
        begun = batch.created_at.isoformat(timespec="seconds")
        table.add_row(*map(Text, (str(batch.id), batch.name, batch.state.value, lines, begun, limit)))
    if not batches:
        table.add_row("none")
    _print(table)


def print_overview(overview: Overview) -> None:
    batch, totals = overview.batch, overview.totals
    table = _build_table("batch", str(batch.id))
    rows = {
        "file": batch.name,
        "asks again": "" if batch.parent_id is None else f"failed lines of {batch.parent_id}",
        "state": batch.state.value,
        "lines": ", ".join(f"{number:,} {state}" for state, number in sorted(totals.states.items())) or "none yet",
        "tokens": f"{totals.prompt_tokens:,} asked, {totals.completion_tokens:,} answered",
        "cost": f"{totals.cost_usd:.4f} USD" + (f" of {batch.limit_usd.normalize():f}" if batch.limit_usd else ""),
        "begun": batch.created_at.isoformat(timespec="seconds"),
        "ended": "" if batch.finished_at is None else batch.finished_at.isoformat(timespec="seconds"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    for type_, lines, example in overview.reasons:
        table.add_row(Text(f"{lines:,} × {type_}"), Text(example))
    _print(table)


def _build_table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, padding=(0, 3, 0, 0))


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_WHEN_NOT_A_TERMINAL)
    console.print(table, end="\n\n")
