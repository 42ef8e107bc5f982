"""What could not be done now, and what could not be taken in at all."""

import uuid
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Moment, MomentNow


class FailedRequest(Base):
    """A job whose run could not go on: why, and when to try again. It stays after the answer, as the record of it."""

    __tablename__ = "failed_requests"
    __table_args__ = (
        CheckConstraint("state in ('parked', 'replaying', 'answered', 'discarded')", name="state"),
        Index("failed_requests_due_idx", "next_try_at", postgresql_where=text("state = 'parked'")),
        Index(None, "state", "updated_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    operation: Mapped[str] = mapped_column(server_default="message")
    state: Mapped[str]
    parks: Mapped[int]
    """How often it was parked; an outage costs no attempt, so there is no limit on it."""
    next_try_at: Mapped[Moment]
    """By the database's clock."""
    error_type: Mapped[str]
    error_message: Mapped[str]
    created_at: Mapped[MomentNow]
    updated_at: Mapped[MomentNow]


class RejectedMessage(Base):
    """A message from the broker that could not become a job, kept as evidence.

    It belongs to no tenant (often that is just what is wrong with it), so only the system role sees it.
    """

    __tablename__ = "rejected_messages"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    task_id: Mapped[str | None]
    error: Mapped[dict[str, Any]]
    """field, problem, remedy"""
    evidence: Mapped[str]
    """The message as it came, made printable and cut to a bound."""
    received_at: Mapped[MomentNow]
