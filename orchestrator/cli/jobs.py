"""`llmyard submit`, `result` and `cancel`: hand a message in, ask for its answer, or end it before there is one."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import typer

from orchestrator.api.jobs import parse_job_id
from orchestrator.front_door import FrontDoor
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import JobRecord
from orchestrator.messages import DEFAULT_TENANT, Channel, parse_message
from orchestrator.results import build_view
from orchestrator.wiring import build_front_door, open_database
from shared.errors import NotFoundError
from shared.settings import load_settings
from shared.telemetry import configure_logging

FoundT = TypeVar("FoundT")

Tenant = Annotated[str, typer.Option(help="Whose message it is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole job as JSON.")]
Timeout = Annotated[float, typer.Option(min=0, help="Longest wait in seconds.")]


def submit(
    content: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    timeout: Timeout = 120.0,
    tenant: Tenant = DEFAULT_TENANT,
    agent: Annotated[str | None, typer.Option(help="Who shall answer; the tenant's default agent if unset.")] = None,
    model: Annotated[str | None, typer.Option(help="A model group; the agent's own if unset.")] = None,
    message_id: Annotated[str | None, typer.Option("--id", help="Your own id: sent twice, it is one job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a message; prints the job's id, or with --wait its answer."""
    message = parse_message(
        {
            "id": message_id or str(uuid4()),
            "tenant_id": tenant,
            "agent_id": agent,
            "model": model,
            "channel": Channel.API.value,
            "sender": "cli",
            "content": sys.stdin.read() if content == "-" else content,
            "timestamp": datetime.now(UTC).isoformat(),
        }
    )

    async def run(door: FrontDoor) -> JobRecord:
        job = await door.submit(message)
        return await door.wait(job.job_id, timeout) if wait else job

    job = asyncio.run(_with_front_door(run))
    if wait or as_json:
        _show(job, as_json=as_json)
    else:
        typer.echo(job.job_id)


def result(
    job_id: Annotated[str, typer.Argument(help="The id that `submit` printed.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the answer.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Show a job's answer, or where the job stands."""

    async def run(door: FrontDoor) -> JobRecord:
        return await door.wait(parse_job_id(job_id), wait)

    _show(asyncio.run(_with_front_door(run)), as_json=as_json)


def cancel(
    job_ids: Annotated[list[str], typer.Argument(help="The ids that `submit` printed.")],
) -> None:
    """End jobs before they have an answer, on whatever machine they run; exit 1 if one had ended already."""
    ids = [parse_job_id(job_id) for job_id in job_ids]

    async def run(door: FrontDoor) -> list[JobRecord | NotFoundError]:
        return [await _catch(door.cancel(job_id)) for job_id in ids]

    outcomes = asyncio.run(_with_front_door(run))
    jobs = [outcome for outcome in outcomes if isinstance(outcome, JobRecord)]
    unknown = [outcome for outcome in outcomes if isinstance(outcome, NotFoundError)]
    for job in jobs:
        typer.echo(f"{job.job_id} is {job.state.value}")
    for error in unknown:
        typer.echo(f"llmyard: {error}", err=True)
    if unknown:
        raise typer.Exit(2)
    if any(job.state is not JobState.CANCELLED for job in jobs):
        raise typer.Exit(1)


async def _catch(cancelling: Awaitable[JobRecord]) -> JobRecord | NotFoundError:
    """An id of no one does not keep the others from ending."""
    try:
        return await cancelling
    except NotFoundError as error:
        return error


async def _with_front_door(use: Callable[[FrontDoor], Awaitable[FoundT]]) -> FoundT:
    settings = load_settings()
    settings.require_broker_url()
    configure_logging(settings)
    async with aclosing(await open_database(settings)) as database:
        return await use(build_front_door(settings, database))


def _show(job: JobRecord, *, as_json: bool) -> None:
    """The answer on standard output, everything about it on standard error; exit 1 while there is no answer."""
    view = build_view(job)
    if as_json:
        typer.echo(json.dumps(view, ensure_ascii=False, indent=2))
    elif job.state is JobState.SUCCEEDED:
        typer.echo(view["content"])
        typer.echo(f"{job.job_id} · {view['provider']} · {view['model']}", err=True)
    else:
        typer.echo(f"{job.job_id} is {job.state.value}{_explain(view)}", err=True)
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(1)


def _explain(view: dict[str, Any]) -> str:
    if error := view.get("error"):
        return f": {error['message']}"
    if view["state"] == JobState.PARKED.value:
        return f" as failed request {view['failed_request_id']}; it is answered when a provider is back"
    return ""
