"""`llmyard agents load`: tenants and their agents from a YAML file."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.agents.catalog import AgentProfile, TenantProfile, save_tenants
from orchestrator.messages import Name
from orchestrator.wiring import open_database
from shared.errors import InputError
from shared.settings import load_settings

app = typer.Typer(help="Tenants and the agents that answer for them.", no_args_is_help=True)


class _AgentEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Name
    name: Name
    role: Name
    persona: str | None = None
    system_prompt: str | None = None
    model_preference: Name = "quality"
    tool_assignments: list[Any] = Field(default_factory=list)
    escalation_rules: list[Any] = Field(default_factory=list)
    is_active: bool = True


class _TenantEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Name
    name: Name
    default_agent_id: Name
    agents: list[_AgentEntry]


class _FileEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenants: list[_TenantEntry]


@app.callback()
def agents() -> None:
    """Tenants and the agents that answer for them."""


@app.command()
def load(path: Annotated[Path, typer.Argument(help="A file like examples/agents.yaml.")]) -> None:
    """Add or replace the tenants and agents of a file; others stay as they are."""
    tenants = read_tenants(path)
    asyncio.run(_save(tenants))
    typer.echo(f"{len(tenants)} tenants, {sum(len(tenant.agents) for tenant in tenants)} agents loaded.")


def read_tenants(path: Path) -> list[TenantProfile]:
    """
    Raises:
        InputError: the file cannot be read, or an entry in it cannot be used.
    """
    try:
        entries = _FileEntry.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read ({error})", "give a YAML file like examples/agents.yaml") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{path}: {field}", first["msg"].lower(), "see examples/agents.yaml") from None
    return [_as_profile(tenant) for tenant in entries.tenants]


def _as_profile(tenant: _TenantEntry) -> TenantProfile:
    ids = [agent.id for agent in tenant.agents]
    if tenant.default_agent_id not in ids:
        raise InputError("default_agent_id", f"tenant {tenant.id!r} has no agent {tenant.default_agent_id!r}", "add it")
    profiles = tuple(AgentProfile(**agent.model_dump()) for agent in tenant.agents)
    return TenantProfile(tenant.id, tenant.name, tenant.default_agent_id, profiles)


async def _save(tenants: Sequence[TenantProfile]) -> None:
    database = await open_database(load_settings())
    try:
        await save_tenants(database, tenants)
    finally:
        await database.aclose()
