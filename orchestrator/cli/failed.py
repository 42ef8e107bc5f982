"""`llmyard failed`: what is parked and why; replay it at once, or discard it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_pool.client.failed_requests import State
from orchestrator.failed_requests.desk import FailedRequestDesk, parse_request_id
from orchestrator.failed_requests.records import AnyOperation, Details, Page, Record, Wanted
from orchestrator.failed_requests.stats import StateCount
from orchestrator.failed_requests.views import (
    build_details_view,
    build_page_view,
    build_record_view,
    build_stats_view,
)
from orchestrator.wiring import open_database
from shared.errors import InputError
from shared.settings import load_settings
from shared.telemetry import configure_logging

app = typer.Typer(help="What could not be answered yet: look, replay, discard.", no_args_is_help=True)

FoundT = TypeVar("FoundT")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ids = Annotated[list[str], typer.Argument(help="Ids of failed requests.")]

_NO_LIMIT: Final = 2**31 - 1
"""In one walk: each that began anew would find what came back meanwhile, and during an outage find no end."""
_WIDTH_WHEN_NOT_A_TERMINAL: Final = 200


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="In this state only.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model group only.")] = None,
    operation: Annotated[AnyOperation | None, typer.Option(help="message is a job, the others calls.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most to show.")] = 20,
    after: Annotated[str | None, typer.Option(help="Show those behind this id.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Only how many there are, by state and age.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show failed requests, the newest first, and how many there are."""
    wanted = Wanted(state, tenant, model, operation)
    before = None if after is None else parse_request_id(after, field="after")

    async def read(desk: FailedRequestDesk) -> tuple[Page, list[StateCount]]:
        page = Page((), None) if stats else await desk.list_some(wanted, before=before, limit=limit)
        return page, await desk.read_stats()

    page, counts = _run(read)
    view = {} if stats else build_page_view(page)
    if as_json:
        _print_json(view | {"stats": build_stats_view(counts)})
        return
    if not stats:
        _print(_build_list(page))
        if page.next:
            typer.echo(f"more: --after {page.next}")
    _print(_build_stats(build_stats_view(counts)))


@app.command()
def show(request_id: Annotated[str, typer.Argument(help="Its id.")], as_json: AsJson = False) -> None:
    """Show one with what was asked, and everything that was tried."""
    id_ = parse_request_id(request_id)
    record, details = _run(lambda desk: desk.show(id_))
    view = build_details_view(record, details)
    if as_json:
        _print_json(view)
        return
    table = _build_table("failed request", str(record.id))
    for name in view.keys() - {"id", "params", "response", "tried"}:
        table.add_row(name.replace("_", " "), Text(str(view[name])))
    _print(table)
    _print_json({"params": details.params})
    if details.tried:
        _print(_build_tried(details))


@app.command()
def replay(
    request_ids: Annotated[list[str] | None, typer.Argument(help="Ids of failed requests.")] = None,
    tenant: Annotated[str | None, typer.Option(help="All that this tenant has parked.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is parked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send back at once what is parked, due or not, and whatever the pace of the drain."""
    ids = [parse_request_id(request_id) for request_id in request_ids or ()]
    if sum((bool(ids), tenant is not None, everything)) != 1:
        raise InputError("replay", "needs to know what", "name ids, or --tenant, or --all")
    if ids:
        _change(ids, lambda desk, id_: desk.replay(id_), as_json=as_json)
        return
    count = _run(lambda desk: desk.replay_many(tenant, limit=_NO_LIMIT)).count
    if as_json:
        _print_json({"replayed": count})
    else:
        typer.echo(f"{count} sent back")


@app.command()
def discard(
    request_ids: Ids,
    reason: Annotated[str | None, typer.Option(help="Stands in the result, for whoever waits.")] = None,
    as_json: AsJson = False,
) -> None:
    """End what is parked without an answer, for good."""
    ids = [parse_request_id(request_id) for request_id in request_ids]
    _change(ids, lambda desk, id_: desk.discard(id_, reason), as_json=as_json)


def _change(
    ids: Sequence[UUID], change: Callable[[FailedRequestDesk, UUID], Awaitable[Record]], *, as_json: bool
) -> None:
    """Each by itself; exit 2 when one could not be changed, after all others were."""

    async def change_each(desk: FailedRequestDesk) -> list[Record | InputError]:
        return [await _catch(change(desk, id_)) for id_ in ids]

    outcomes = _run(change_each)
    done = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, InputError)]
    if as_json:
        _print_json([build_record_view(record) for record in done])
    else:
        for record in done:
            typer.echo(f"{record.id} is {record.state}")
    for error in refused:
        typer.echo(f"llmyard: {error}", err=True)
    if refused:
        raise typer.Exit(2)


async def _catch(changing: Awaitable[Record]) -> Record | InputError:
    try:
        return await changing
    except InputError as error:
        return error


def _run(use: Callable[[FailedRequestDesk], Awaitable[FoundT]]) -> FoundT:
    async def run() -> FoundT:
        settings = load_settings()
        settings.require_broker_url()
        configure_logging(settings)
        async with aclosing(await open_database(settings)) as database:
            return await use(FailedRequestDesk(database))

    return asyncio.run(run())


def _build_list(page: Page) -> Table:
    now = datetime.now(UTC)
    table = _build_table("id", "state", "operation", "model", "tenant", "attempts", "error", "since", "next try")
    for record in page.records:
        next_try = describe_next_try(record, now)
        since = record.created_at.isoformat(timespec="seconds")
        row = (record.id, record.state, record.operation, record.model, record.tenant_id, record.attempts)
        table.add_row(*(Text(str(value)) for value in (*row, record.error_type, since, next_try)))
    return table


def describe_next_try(record: Record, now: datetime) -> str:
    """Empty for what waits for nothing."""
    if record.state != "parked":
        return ""
    left_seconds = (record.next_try_at - now).total_seconds()
    return "due" if left_seconds <= 0 else f"in {left_seconds:,.0f} s"


def _build_tried(details: Details) -> Table:
    table = _build_table("run", "deployment", "model", "at", "seconds", "error")
    for each in details.tried:
        error = "" if each.error_type is None else f"{each.error_type}: {each.error_message}"
        at = each.started_at.isoformat(timespec="seconds")
        row = (f"{each.run}.{each.position}", each.deployment, each.model, at, f"{each.latency_seconds:.2f}", error)
        table.add_row(*map(Text, row))
    return table


def _build_stats(view: dict[str, Any]) -> Table:
    table = _build_table("state", "number", "oldest")
    for state, count in view["by_state"].items():
        table.add_row(state, str(count["number"]), f"{count['oldest_seconds']:,.0f} s")
    for age, number in view["parked_by_age"].items():
        table.add_row(f"  parked {age.replace('_', ' ')}", str(number), "")
    if not view["by_state"]:
        table.add_row("nothing has failed", "0", "")
    return table


def _build_table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_WHEN_NOT_A_TERMINAL)
    console.print(table, end="\n\n")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
