"""Agents and tenants as Postgres keeps them; every query on them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ConfigDict
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.messages import DEFAULT_TENANT, Name
from shared.database import Database
from shared.errors import InputError, NotFoundError


@dataclass(frozen=True, slots=True)
class AgentProfile:
    """Who speaks, in what tone, on which model group."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: Name
    name: Name
    role: Name
    persona: str | None = None
    system_prompt: str | None = None
    model_preference: Name = "quality"
    """A model group's name."""
    tool_assignments: list[Any] = field(default_factory=list)
    escalation_rules: list[Any] = field(default_factory=list)
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class TenantProfile:
    """A tenant with its agents."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: Name
    name: Name
    default_agent_id: Name
    agents: tuple[AgentProfile, ...]


DEFAULT_PROFILE: Final = TenantProfile(
    id=DEFAULT_TENANT,
    name="Default tenant",
    default_agent_id="assistant",
    agents=(AgentProfile(id="assistant", name="Robin", role="a helpful assistant"),),
)
"""Made by `llmyard migrate` where there is no such tenant, so that a first message has somebody to answer it."""

_GET = text(
    """
    select coalesce(cast(:agent_id as text), default_agent_id) as asked_id, agents.*
    from tenants
    left join agents on agents.tenant_id = tenants.id
                    and agents.id = coalesce(cast(:agent_id as text), default_agent_id)
    where tenants.id = :tenant_id
    """
)

_SAVE_TENANT = text(
    """
    insert into tenants (id, name, default_agent_id) values (:id, :name, :default_agent_id)
    on conflict (id) do update set name = excluded.name, default_agent_id = excluded.default_agent_id
    """
)

_SAVE_AGENT = text(
    """
    insert into agents (tenant_id, id, name, role, persona, system_prompt, model_preference, tool_assignments,
                        escalation_rules, is_active)
    values (:tenant_id, :id, :name, :role, :persona, :system_prompt, :model_preference, :tool_assignments,
            :escalation_rules, :is_active)
    on conflict (tenant_id, id) do update
    set name = excluded.name, role = excluded.role, persona = excluded.persona, system_prompt = excluded.system_prompt,
        model_preference = excluded.model_preference, tool_assignments = excluded.tool_assignments,
        escalation_rules = excluded.escalation_rules, is_active = excluded.is_active, updated_at = now()
    """
).bindparams(bindparam("tool_assignments", type_=JSONB), bindparam("escalation_rules", type_=JSONB))


async def get_agent(connection: AsyncConnection, tenant_id: str, agent_id: str | None) -> AgentProfile:
    """The agent asked for, or the tenant's default one.

    Raises:
        NotFoundError: no such tenant, or no such agent in it.
        InputError: the agent is switched off.
    """
    row = (await connection.execute(_GET, {"tenant_id": tenant_id, "agent_id": agent_id})).mappings().one_or_none()
    if row is None:
        raise NotFoundError("tenant_id", f"no tenant {tenant_id!r}", "add it with `llmyard agents load`")
    if row["id"] is None:
        problem = f"no agent {row['asked_id']!r} in tenant {tenant_id!r}"
        raise NotFoundError("agent_id", problem, "add it with `llmyard agents load`, or name another")
    if not row["is_active"]:
        raise InputError("agent_id", f"agent {row['id']!r} is not active", "activate it, or name another")
    return AgentProfile(**{name: row[name] for name in AgentProfile.__dataclass_fields__})


async def save_tenants(database: Database, tenants: Iterable[TenantProfile]) -> None:
    """Add or replace tenants and their agents; agents that are not named stay as they are."""
    for tenant in tenants:
        async with database.as_tenant(tenant.id) as connection:
            await _save_tenant(connection, tenant)


async def ensure_default_tenant(database: Database) -> None:
    """Make the default tenant and its agent unless an operator has made them already."""
    async with database.as_tenant(DEFAULT_TENANT) as connection:
        if not (await connection.execute(text("select 1 from tenants"))).first():
            await _save_tenant(connection, DEFAULT_PROFILE)


async def _save_tenant(connection: AsyncConnection, tenant: TenantProfile) -> None:
    names = {"id": tenant.id, "name": tenant.name, "default_agent_id": tenant.default_agent_id}
    await connection.execute(_SAVE_TENANT, names)
    for agent in tenant.agents:
        columns = {name: getattr(agent, name) for name in AgentProfile.__dataclass_fields__}
        await connection.execute(_SAVE_AGENT, {"tenant_id": tenant.id, **columns})
