"""`llmyard status`: on one screen, who answers, what is left of the quotas, and how the queue stands."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_pool.catalog import Catalog
from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, load_catalog
from llm_pool.catalogs.startup import leave_out_unusable
from llm_pool.pool_status import DeploymentQuota, PoolStatus, QuotaInfo
from llm_pool.stores.cooldowns.base import CooldownState, build_key
from llm_pool.stores.statuses.base import StatusStoreUnavailableError
from orchestrator.api.quota import build_quota_view
from orchestrator.liveness.registry import WorkerSeen
from orchestrator.liveness.verdict import Condition, decide_condition
from orchestrator.overview import Overview, read_overview
from orchestrator.wiring import open_database, open_fleet_view
from shared.settings import Settings, find_secret, load_settings
from shared.telemetry import configure_logging

_WIDTH_WHEN_NOT_A_TERMINAL = 160


def status(as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False) -> None:
    """Show who answers, what is left of the quotas, and how the queue stands; exit 1 if a worker does not work."""
    settings = load_settings()
    configure_logging(settings)
    catalog = load_catalog(settings.llmyard_config or DEFAULT_CATALOG, find_secret)
    seen = asyncio.run(_look(settings, catalog))
    if as_json:
        typer.echo(json.dumps(_build_view(seen), ensure_ascii=False, indent=2, default=str))
    else:
        _print(seen, settings.llmyard_worker_silent_seconds)
    if seen.overview.faults:
        raise typer.Exit(1)


def _print(seen: "Seen", silent_seconds: float) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_WHEN_NOT_A_TERMINAL)
    now, overview = datetime.now(UTC), seen.overview
    tables = _show_deployments(seen, now), _show_jobs(overview), _show_parked(overview, now)
    for table in (*tables, _show_workers(overview, silent_seconds)):
        console.print(table, end="\n\n")
    if seen.pool is None:
        console.print("Redis cannot be reached: quotas and cooldowns are not known.")
    for fault in overview.faults:
        console.print(Text(fault, style="bold red"), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to show."""

    catalog: Catalog
    """As this machine could use it."""
    overview: Overview
    pool: PoolStatus | None
    """None: the status store cannot be reached."""
    cooldowns: Mapping[str, CooldownState]
    """By name of the deployment."""


async def _look(settings: Settings, configured: Catalog) -> Seen:
    catalog = await leave_out_unusable(configured)
    async with aclosing(await open_database(settings)) as database, database.as_system() as connection:
        overview = await read_overview(connection, silent_seconds=settings.llmyard_worker_silent_seconds)
    async with open_fleet_view(settings, configured.policies.cooldown) as view:
        try:
            pool = await view.statuses.read()
        except StatusStoreUnavailableError:
            return Seen(catalog, overview, None, {})
        cooldowns = {each.name: await view.cooldowns.read(build_key(each)) for each in configured.deployments}
        return Seen(catalog, overview, pool, cooldowns)


def _build_view(seen: Seen) -> dict[str, Any]:
    return {
        "queue": asdict(seen.overview),
        "pool": None if seen.pool is None else build_quota_view(seen.pool),
        "left_out": {entry.deployment: entry.reason for entry in seen.catalog.left_out},
        "cooldowns": {name: asdict(state) for name, state in seen.cooldowns.items()},
    }


def _show_deployments(seen: Seen, now: datetime) -> Table:
    """Those of the configuration, and those that told of themselves, such as a mock that stands in.

    Who told of itself is in reach of some worker, whatever can be reached from here.
    """
    pool = seen.pool or PoolStatus()
    told = {quota.deployment: quota for quota in pool.quotas}
    rows = {each.name: (each.provider, each.model) for each in seen.catalog.deployments}
    rows |= {name: (quota.provider, quota.model) for name, quota in told.items()}
    answering: dict[str, list[str]] = {}
    for each in pool.answering:
        answering.setdefault(each.deployment, []).append(each.model_group)
        rows.setdefault(each.deployment, (each.provider, each.model))
    table = _build_table("deployment", "provider", "model", "state", "answered last for", "quota")
    for name, (provider, model) in rows.items():
        state, groups = describe_cooldown(seen.cooldowns.get(name)), ", ".join(answering.get(name, ()))
        table.add_row(*map(Text, (name, provider, model, state, groups, describe_quota(told.get(name), now))))
    for entry in seen.catalog.left_out:
        if entry.deployment not in rows:
            table.add_row(*map(Text, (entry.deployment, "", "", f"left out: {entry.reason}", "", "")))
    return table


def _show_jobs(overview: Overview) -> Table:
    table = _build_table("jobs", "number", "oldest")
    for count in overview.jobs:
        table.add_row(count.state, str(count.jobs), describe_seconds(count.oldest_seconds))
    if not overview.jobs:
        table.add_row("none", "0", "")
    return table


def _show_parked(overview: Overview, now: datetime) -> Table:
    table = _build_table("parked because of", "number", "oldest", "next try")
    for count in overview.parked:
        left_seconds = (count.next_try_at - now).total_seconds()
        next_try = "due" if left_seconds <= 0 else f"in {describe_seconds(left_seconds)}"
        table.add_row(count.error_type, str(count.jobs), describe_seconds(count.oldest_seconds), next_try)
    if not overview.parked:
        table.add_row("nothing is parked", "0", "", "")
    return table


def _show_workers(overview: Overview, silent_seconds: float) -> Table:
    table = _build_table("worker", "process", "state", "jobs in hand", "room for", "lease")
    for worker in overview.workers:
        condition = decide_condition(worker, silent_seconds)
        style = "red" if condition in (Condition.SILENT, Condition.LOST) else ""
        words = Text(worker.node), Text(worker.name), Text(_describe_condition(worker, condition), style)
        table.add_row(*words, str(worker.jobs), str(worker.concurrency), _describe_lease(worker.lease_left_seconds))
    if not overview.workers:
        table.add_row("none")
    return table


def _describe_condition(worker: WorkerSeen, condition: Condition) -> str:
    match condition:
        case Condition.SILENT:
            return f"silent for {describe_seconds(worker.quiet_seconds)}"
        case Condition.LOST | Condition.GONE:
            return f"{condition}, last seen {describe_seconds(worker.unseen_seconds)} ago"
    return str(condition)


def _describe_lease(left_seconds: float | None) -> str:
    if left_seconds is None:
        return ""
    return f"{describe_seconds(left_seconds)} left" if left_seconds > 0 else "run out"


def _build_table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.show_header = True
    return table


def describe_cooldown(state: CooldownState | None) -> str:
    """`open`, or for how long it is left alone."""
    if state is None:
        return ""
    left = f" for {describe_seconds(state.left_seconds)}" if state.left_seconds else ""
    return f"{state.phase.replace('_', ' ')}{left}"


def describe_quota(quota: DeploymentQuota | None, now: datetime) -> str:
    """`requests 60 of 100 a minute, resets in 12 s; …`"""
    if quota is None:
        return "not asked yet"
    return "; ".join(_describe(info, now) for info in quota.quotas) or "not told"


def _describe(info: QuotaInfo, now: datetime) -> str:
    return " ".join(_list_words(info, now))


def _list_words(info: QuotaInfo, now: datetime) -> Iterator[str]:
    yield info.kind.replace("_", " ")
    yield str(info.used) if info.used is not None else f"{info.remaining} left"
    if info.limit is not None:
        yield f"of {info.limit}"
    yield f"a {info.period}"
    if info.is_counted:
        yield "(our count)"
    if info.used and info.resets_at is not None and info.resets_at > now:
        yield f"resets in {describe_seconds((info.resets_at - now).total_seconds())}"
    if info.is_warning:
        yield "(nearly used up)"


def describe_seconds(seconds: float) -> str:
    """In the unit a person would take."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
