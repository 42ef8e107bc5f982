"""The job ledger: narrow, hot tables that are updated, and cold ones that are only ever added to.

`leases` holds the runs in hand and nothing else, so that a heartbeat is a heap-only update of a small table and the
search for dead runs reads no job. `jobs` changes when a state does. What was asked (`messages`) and what came of it
(`results`, `runs`, `attempts`) never shares a row with them.
"""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Computed,
    DateTime,
    ForeignKey,
    Index,
    Numeric,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Moment, MomentNow

JOB_STATES = ("queued", "running", "parked", "succeeded", "failed", "cancelled", "discarded", "quarantined")


# In the words that Postgres keeps it in: a test compares the two.
_QUEUED_AT = (
    "case when state = 'queued'::text and batch_id is null then dispatched_at else null::timestamp with time zone end"
)


class Job(Base):
    """A piece of work a user asked for: where it stands, and the number of the run that may end it."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state in ({})".format(", ".join(f"'{state}'" for state in JOB_STATES)), name="state"),
        Index("jobs_queued_at_idx", "queued_at", postgresql_where=text("queued_at is not null")),
        Index("jobs_task_id_idx", "task_id", postgresql_where=text("batch_id is null")),
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
    created_at: Mapped[MomentNow]
    dispatched_at: Mapped[MomentNow]
    """When it was last put on the broker's queue."""
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    batch_id: Mapped[uuid.UUID | None]
    """Whose job it is; its batch feeds it to the workers, in slices."""
    queued_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), Computed(_QUEUED_AT, persisted=True))
    """Since when a message of its own is on its way; None: it waits for none. The one indexed column that changes."""


def _job_id() -> Any:
    """Without a foreign key: whoever writes such a row holds the job's, and the check costs more than the rest."""
    return mapped_column(primary_key=True)


class Lease(Base):
    """A run in hand. Small and hot: renewed by every heartbeat, gone when the run ends."""

    __tablename__ = "leases"

    job_id: Mapped[uuid.UUID] = _job_id()
    run: Mapped[int]
    tenant_id: Mapped[str]
    worker: Mapped[str]
    claim_id: Mapped[uuid.UUID]
    """Of the delivery that claimed it, which may have to ask twice whether it did."""
    lease_until: Mapped[Moment]
    """By the database's clock; past it the run is taken for dead."""


class Sweep(Base):
    """When a sweep over the ledger last ran, and since when it has run without a gap."""

    __tablename__ = "sweeps"

    name: Mapped[str] = mapped_column(primary_key=True)
    ran_at: Mapped[Moment]
    calm_since: Mapped[Moment]


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
    """None while it runs; `expired` if it was not heard of in time, `stale` if it reported after that, `crashed` if its
    process was seen to die; else what it ended with.
    """
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    """Of a run without an outcome its last words, as far as any were heard."""


class AttemptRow(Base):
    """One try of a request at one deployment: what was paid, whatever became of the run."""

    __tablename__ = "attempts"

    job_id: Mapped[uuid.UUID] = _job_id()
    run: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
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

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    task_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
