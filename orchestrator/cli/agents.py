"""`llmyard agents load`: tenants and their agents from a YAML file."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml
from pydantic import TypeAdapter, ValidationError

from orchestrator.agents.catalog import TenantProfile, save_tenants
from orchestrator.wiring import open_database
from shared.errors import InputError
from shared.settings import load_settings

app = typer.Typer(help="Tenants and the agents that answer for them.", no_args_is_help=True)


_FILE = TypeAdapter(dict[Literal["tenants"], tuple[TenantProfile, ...]])


@app.callback()
def agents() -> None:
    """Tenants and the agents that answer for them."""


@app.command()
def load(path: Annotated[Path, typer.Argument(help="A file like examples/agents.yaml.")]) -> None:
    """Add or replace the tenants and agents of a file; others stay as they are."""
    tenants = read_tenants(path)
    asyncio.run(_save(tenants))
    typer.echo(f"{len(tenants)} tenants, {sum(len(tenant.agents) for tenant in tenants)} agents loaded.")


def read_tenants(path: Path) -> tuple[TenantProfile, ...]:
    """
    Raises:
        InputError: the file cannot be read, or an entry in it cannot be used.
    """
    try:
        tenants = _FILE.validate_python(yaml.safe_load(path.read_text()))["tenants"]
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read ({error})", "give a YAML file like examples/agents.yaml") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{path}: {field}", first["msg"].lower(), "see examples/agents.yaml") from None
    except KeyError:
        raise InputError(f"{path}: tenants", "is missing", "see examples/agents.yaml") from None
    for tenant in tenants:
        _require_default_agent(tenant)
    return tenants


def _require_default_agent(tenant: TenantProfile) -> None:
    if tenant.default_agent_id not in (agent.id for agent in tenant.agents):
        raise InputError("default_agent_id", f"tenant {tenant.id!r} has no agent {tenant.default_agent_id!r}", "add it")


async def _save(tenants: Sequence[TenantProfile]) -> None:
    async with aclosing(await open_database(load_settings())) as database:
        await save_tenants(database, tenants)
