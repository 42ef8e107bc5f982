"""`llmyard batch`: ask a whole file, and look after what was asked."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, load_catalog
from orchestrator.batches.desk import BatchDesk, BrokerSlices, Order
from orchestrator.batches.ids import parse_batch_id
from orchestrator.batches.progress import Progress
from orchestrator.batches.records import Batch, BatchOptions
from orchestrator.cli.batch_tables import build_view, open_display, print_batches, print_overview
from orchestrator.messages import DEFAULT_TENANT
from orchestrator.wiring import open_database
from shared.errors import InputError
from shared.settings import find_secret, load_settings
from shared.telemetry import configure_logging

app = typer.Typer(help="Ask a whole file: run, look, cancel, ask again.", no_args_is_help=True)

FoundT = TypeVar("FoundT")
Tenant = Annotated[str, typer.Option(help="Whose batch it is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BatchId = Annotated[str, typer.Argument(help="The id that `run` printed.")]
LimitUsd = Annotated[str | None, typer.Option(help="What all of it may cost; a line beyond that fails unasked.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where the answers go, in the input's order.")]

_EXIT_INTERRUPTED = 130


@app.command()
def run(
    path: Annotated[Path | None, typer.Argument(help="A .jsonl, .csv, .tsv or .parquet file.")] = None,
    output: Output = None,
    model: Annotated[str | None, typer.Option(help="A model group for every line.")] = None,
    limit_usd: LimitUsd = None,
    column: Annotated[str | None, typer.Option(help="The column or field with the prompt.")] = None,
    template: Annotated[str | None, typer.Option(help="The prompt, with {{name}} for a line's fields.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt for every prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Bound of each answer.")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    strict: Annotated[bool, typer.Option("--strict", help="Ask nothing if a single line cannot be.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Ask again what was asked before.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Take the file in, and do not wait.")] = False,
    resume: Annotated[str | None, typer.Option(help="Write out this batch, without its input.")] = None,
) -> None:
    """Ask every line of a file and write the answers down, in the same order.

    The same command again goes on where it was: no finished line is asked twice, and Ctrl-C stops nothing but the
    client. A line that cannot be asked comes out as failed, with the reason; with --strict nothing is asked then.
    """
    if resume is not None:
        _resume(parse_batch_id(resume), tenant, _require(output))
        return
    if path is None:
        raise InputError("input", "is missing", "name a file, or --resume a batch")
    if output is None and not detach:
        raise InputError("output", "is missing", "name a file with -o, or --detach")
    options = BatchOptions(model, column, template, system, temperature, max_tokens)
    order = Order(path, tenant, options, _parse_usd(limit_usd), is_strict=strict, is_anew=new)
    _start(order, None if detach else output)


@app.command("list")
def list_(
    tenant: Tenant = DEFAULT_TENANT,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show batches, the newest first."""
    batches = _with_desk(lambda desk: desk.list_newest(tenant, limit))
    if as_json:
        _print_json([build_view(batch) for batch in batches])
    else:
        print_batches(batches)


@app.command()
def show(batch_id: BatchId, tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False) -> None:
    """Show what has come of a batch: lines by state, tokens, cost, and why lines failed."""
    id_ = parse_batch_id(batch_id)
    overviews = _with_desk(lambda desk: desk.show(tenant, id_))
    if as_json:
        _print_json([build_view(overview.batch, overview) for overview in overviews])
    else:
        for overview in overviews:
            print_overview(overview)


@app.command()
def cancel(batch_id: BatchId, tenant: Tenant = DEFAULT_TENANT) -> None:
    """End every line that has no answer yet, wherever it is."""
    id_ = parse_batch_id(batch_id)

    async def use(desk: BatchDesk) -> Batch:
        return await desk.cancel(await desk.get(tenant, id_))

    typer.echo(f"{id_} is {_with_desk(use).state.value}")


@app.command()
def retry_failed(
    batch_id: BatchId, output: Output = None, limit_usd: LimitUsd = None, tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Ask the lines without an answer again, with a budget of their own; what was answered stays.

    A line that could not be read is not asked again: mend the file and run it.
    """
    id_, limit = parse_batch_id(batch_id), _parse_usd(limit_usd)

    async def use(desk: BatchDesk) -> int:
        retry = await desk.retry_failed(await desk.get(tenant, id_), limit)
        return 0 if retry is None else retry.lines

    typer.echo(f"{_with_desk(use):,} lines are asked again")
    if output is not None:
        _resume(id_, tenant, output)


def _start(order: Order, output: Path | None) -> None:
    come_back = "the same command"

    async def use(desk: BatchDesk) -> Progress | None:
        opened = await desk.open(order)
        typer.echo(f"batch {opened.batch.id}{' goes on' if opened.was_there else ''}", err=True)
        with open_display() as show_progress:
            return await desk.run(opened, output, show_progress)

    _watch(use, come_back)


def _resume(batch_id: Any, tenant: str, output: Path) -> None:
    async def use(desk: BatchDesk) -> Progress | None:
        batch = await desk.get(tenant, batch_id)
        with open_display() as show_progress:
            return await desk.resume(batch, output, show_progress)

    _watch(use, f"`llmyard batch run --resume {batch_id} -o {output}`")


def _watch(use: Callable[[BatchDesk], Awaitable[Progress | None]], come_back: str) -> None:
    try:
        progress = _with_desk(use)
    except KeyboardInterrupt:
        typer.echo(f"What was taken in goes on without you. To come back, and take in the rest: {come_back}.", err=True)
        raise typer.Exit(_EXIT_INTERRUPTED) from None
    if progress is not None and progress.failed:
        lines = "line has" if progress.failed == 1 else "lines have"
        typer.echo(f"{progress.failed:,} {lines} no answer: `llmyard batch show` says why.", err=True)


def _require(output: Path | None) -> Path:
    if output is None:
        raise InputError("output", "is missing", "name a file with -o")
    return output


def _parse_usd(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        usd = Decimal(text)
    except ArithmeticError:
        usd = Decimal("NaN")
    if not (usd.is_finite() and usd > 0):
        raise InputError("limit_usd", f"{text!r} is no amount of money", "write it like 5 or 0.50")
    return usd


def _with_desk(use: Callable[[BatchDesk], Awaitable[FoundT]]) -> FoundT:
    async def run() -> FoundT:
        settings = load_settings()
        settings.require_broker_url()
        configure_logging(settings)
        models = load_catalog(settings.llmyard_config or DEFAULT_CATALOG, find_secret)
        async with aclosing(await open_database(settings)) as database:
            return await use(BatchDesk(database, models, BrokerSlices()))

    return asyncio.run(run())


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
