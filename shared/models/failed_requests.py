"""What could not be done now, and what could not be taken in at all."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Moment, MomentNow

DUE = ("model", "tenant_id", "next_try_at")
PARKED = text("state = 'parked'")
REPLAYING = text("state = 'replaying'")
ANSWERED = text("state = 'answered'")
OPEN = text("state in ('parked', 'replaying')")


class FailedRequest(Base):
    """A job whose run could not go on: why, and when to try again. It stays after the answer, as the record of it."""

    __tablename__ = "failed_requests"
    __table_args__ = (
        CheckConstraint("state in ('parked', 'replaying', 'answered', 'discarded')", name="state"),
        # With what decides who goes first, so that the search for it need not leave the index.
        Index(
            "failed_requests_due_idx",
            *DUE,
            postgresql_include=["created_at", "job_id"],
            postgresql_where=PARKED,
        ),
        Index("failed_requests_parked_idx", "created_at", postgresql_where=PARKED),
        Index("failed_requests_open_idx", "tenant_id", "id", postgresql_where=OPEN),
        Index(
            "failed_requests_again_idx", "model", "updated_at", postgresql_where=text("state = 'parked' and parks > 1")
        ),
        Index("failed_requests_replaying_idx", "model", postgresql_where=REPLAYING),
        Index("failed_requests_answered_idx", "model", "updated_at", postgresql_where=ANSWERED),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    operation: Mapped[str] = mapped_column(server_default="message")
    model: Mapped[str] = mapped_column(server_default="")
    """The model group it waits for; the drain has a pace for each."""
    state: Mapped[str]
    parks: Mapped[int]
    """How often it was parked; an outage costs no attempt, so there is no limit on it."""
    next_try_at: Mapped[Moment]
    """By the database's clock."""
    error_type: Mapped[str]
    error_message: Mapped[str]
    created_at: Mapped[MomentNow]
    updated_at: Mapped[MomentNow]


class FailedCall(Base):
    """A call of the library that nobody could answer; it belongs to no job. It stays, with its answer."""

    __tablename__ = "failed_calls"
    __table_args__ = (
        CheckConstraint("state in ('parked', 'replaying', 'answered', 'discarded')", name="state"),
        Index("failed_calls_open_idx", "id", postgresql_where=OPEN),
        # With what decides who goes first, so that the search for it need not leave the index.
        Index(
            "failed_calls_due_idx",
            *DUE,
            postgresql_include=["created_at", "id"],
            postgresql_where=PARKED,
        ),
        Index("failed_calls_parked_idx", "created_at", postgresql_where=PARKED),
        Index("failed_calls_again_idx", "model", "updated_at", postgresql_where=text("state = 'parked' and tries > 0")),
        Index("failed_calls_replaying_idx", "model", postgresql_where=REPLAYING),
        Index("failed_calls_answered_idx", "model", "updated_at", postgresql_where=ANSWERED),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    operation: Mapped[str]
    model: Mapped[str]
    """What was asked: one that is out is not asked again in the same walk."""
    request: Mapped[dict[str, Any]]
    state: Mapped[str]
    tries: Mapped[int] = mapped_column(server_default="0")
    """The fencing token: only the latest replay may record how it ended."""
    lease_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """By the database's clock; past it a replay is taken for dead."""
    next_try_at: Mapped[MomentNow]
    """Likewise; the workers do not ask again before."""
    crash_count: Mapped[int] = mapped_column(server_default="0")
    """Replays that were never heard of again."""
    error_type: Mapped[str]
    error_message: Mapped[str]
    response: Mapped[dict[str, Any] | None]
    created_at: Mapped[MomentNow]
    updated_at: Mapped[MomentNow]


class Drain(Base):
    """How the replays of one model group went up to now; written by the pass before for the next one."""

    __tablename__ = "drains"
    __table_args__ = (CheckConstraint("queue in ('jobs', 'calls')", name="queue"),)

    queue: Mapped[str] = mapped_column(primary_key=True)
    """`jobs`: `failed_requests`; `calls`: `failed_calls`."""
    model: Mapped[str] = mapped_column(primary_key=True)
    allowed: Mapped[int] = mapped_column(server_default="1")
    """Replays that may be under way at once; 1 is a probe."""
    served_tenant: Mapped[str] = mapped_column(server_default="")
    """The last one whose turn it was; the next pass begins behind it."""
    answered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When a pass last saw replays answered."""
    turned_away_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When a pass last saw replays parked again for want of a provider."""
    passed_at: Mapped[MomentNow]


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
