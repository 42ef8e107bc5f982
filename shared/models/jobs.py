"""The job ledger: one narrow, hot table that is updated, and cold ones that are only ever added to.

`jobs` holds nothing but claim state, so that a heartbeat stays a heap-only update: none of the columns it changes
is indexed or stands in an index's predicate. What was asked (`messages`) and what came of it (`results`, `runs`,
`attempts`) never shares a row with it.
"""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Moment, MomentNow

JOB_STATES = ("queued", "running", "parked", "succeeded", "failed", "cancelled", "discarded", "quarantined")


class Job(Base):
    """A piece of work a user asked for; where it stands, and who has it."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state in ({})".format(", ".join(f"'{state}'" for state in JOB_STATES)), name="state"),
        # On `finished_at`, not on `state`: a state in the predicate would end heap-only updates at every claim.
        Index("jobs_open_idx", "created_at", postgresql_where=text("finished_at is null")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    task_id: Mapped[str]
    """The Celery task whose result is this job's; further tasks that wait for it stand in `waiting_tasks`."""
    state: Mapped[str]
    run: Mapped[int] = mapped_column(server_default="0")
    """Number of the latest run: the fencing token. Only its holder may complete the job."""
    crash_count: Mapped[int] = mapped_column(server_default="0")
    """Runs that ended without an outcome; planned stops and outages do not count."""
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """By the database's clock; past it the run is taken for dead."""
    created_at: Mapped[MomentNow]
    dispatched_at: Mapped[MomentNow]
    """When it was last put on the broker's queue."""
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def _job_id() -> Any:
    return mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


class MessageRow(Base):
    """What was asked, as it came; never changed."""

    __tablename__ = "messages"
    __table_args__ = (UniqueConstraint("tenant_id", "message_id"),)

    job_id: Mapped[uuid.UUID] = _job_id()
    tenant_id: Mapped[str]
    message_id: Mapped[str]
    """The sender's own id: the same one twice is one job."""
    body: Mapped[dict[str, Any]]
    received_at: Mapped[MomentNow]


class Run(Base):
    """One handling of a job, from claim to outcome. Written before any call is made."""

    __tablename__ = "runs"

    job_id: Mapped[uuid.UUID] = _job_id()
    number: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    worker: Mapped[str]
    started_at: Mapped[MomentNow]
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    outcome: Mapped[str | None]
    """None while it runs; `expired` if it was never heard of again; `stale` if a later run had taken over."""
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]


class AttemptRow(Base):
    """One try of a request at one deployment: what was paid, whatever became of the run."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "run", "position"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    run: Mapped[int]
    position: Mapped[int]
    """Of the attempt within its run, from 1; unique, so that recording a run twice pays once."""
    tenant_id: Mapped[str]
    deployment: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    started_at: Mapped[Moment]
    latency_seconds: Mapped[float]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    cost_usd: Mapped[Decimal | None] = mapped_column(Numeric(18, 9))
    """None is unknown, which is not zero."""
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]


class Result(Base):
    """What the user gets; one a job, written once."""

    __tablename__ = "results"

    job_id: Mapped[uuid.UUID] = _job_id()
    tenant_id: Mapped[str]
    run: Mapped[int]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[MomentNow]


class WaitingTask(Base):
    """A further Celery task that was sent for the same message and waits for the one answer."""

    __tablename__ = "waiting_tasks"

    job_id: Mapped[uuid.UUID] = _job_id()
    task_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
