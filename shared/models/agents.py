"""Tenants and the agents that speak for them."""

from typing import Any

from sqlalchemy import ForeignKey, text, true
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, MomentNow


class Tenant(Base):
    """A customer; every row of theirs carries its id, and row-level security keeps tenants apart."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    default_agent_id: Mapped[str]
    """Who answers a message that names no agent."""
    created_at: Mapped[MomentNow]


class Agent(Base):
    """Who answers: prompt, tone and model group. Ids are unique within the tenant."""

    __tablename__ = "agents"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    persona: Mapped[str | None]
    system_prompt: Mapped[str | None]
    model_preference: Mapped[str] = mapped_column(server_default="quality")
    """A model group's name."""
    tool_assignments: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    escalation_rules: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    is_active: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[MomentNow]
    updated_at: Mapped[MomentNow]
