"""Batches: many jobs from one file, and how far each of them has come."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Index, Numeric, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, MomentNow

BATCH_STATES = ("importing", "running", "done", "cancelling", "cancelled")
SHAPES = ("openai", "prompts")


def _list(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


class Batch(Base):
    """The lines of one file. Line n is the job whose id is the batch's with n in its last 32 bits."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("tenant_id", "fingerprint", "generation"),
        CheckConstraint(f"shape in ({_list(SHAPES)})", name="shape"),
        CheckConstraint(f"state in ({_list(BATCH_STATES)})", name="state"),
        Index("batches_open_idx", "id", postgresql_where=text("finished_at is null")),
        Index("batches_parent_id_idx", "parent_id", postgresql_where=text("parent_id is not null")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    fingerprint: Mapped[str]
    """Of what was asked, file and options: the same again is the same batch."""
    generation: Mapped[int] = mapped_column(server_default="1")
    """Counts up where somebody wants the same asked anew."""
    parent_id: Mapped[uuid.UUID | None]
    """The batch whose failed lines this one asks again."""
    name: Mapped[str]
    """What the user calls it: the input file's name."""
    shape: Mapped[str]
    """Of the lines that come out."""
    options: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """How the lines were made into prompts."""
    limit_usd: Mapped[Decimal | None] = mapped_column(Numeric(18, 9))
    state: Mapped[str] = mapped_column(server_default="importing")
    imported_lines: Mapped[int] = mapped_column(server_default="0")
    """So many lines of the input have been read and are in the ledger."""
    total_lines: Mapped[int | None]
    """None until the input's end was seen."""
    fed_line: Mapped[int] = mapped_column(server_default="0")
    """Every line up to this one was sent to the workers at least once."""
    settled_lines: Mapped[int] = mapped_column(server_default="0")
    """Every line up to this one has ended."""
    fed_at: Mapped[MomentNow]
    """When something of it was last sent, or last looked for in vain."""
    created_at: Mapped[MomentNow]
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
