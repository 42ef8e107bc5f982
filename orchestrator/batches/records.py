"""What is known of a batch, as plain values."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID


class Shape(StrEnum):
    """What the lines are that go in, which decides what comes out."""

    OPENAI = "openai"
    """Lines of an OpenAI batch file; answers are in that form too."""
    PROMPTS = "prompts"
    """Prompts; answers are flat."""


class BatchState(StrEnum):
    """Where a batch stands.

    importing ──► running ──► done
        └──────────┴──► cancelling ──► cancelled
    """

    IMPORTING = "importing"
    """Its input's end was not seen yet; what is in already runs."""
    RUNNING = "running"
    DONE = "done"
    """Every line has ended."""
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (BatchState.DONE, BatchState.CANCELLED)


SLICE_LINES: Final = 100
"""Jobs that one message on the broker's queue carries."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a file's lines are made into prompts. Other options are another batch."""

    model: str | None = None
    """A model group for every line; None: as the line says, or the tenant's default agent prefers."""
    column: str | None = None
    """Of a table: the column with the prompt."""
    template: str | None = None
    """A prompt with `{{name}}` for the fields of a line."""
    system: str | None = None
    """A system prompt for lines that are no OpenAI requests."""
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What a batch is made of."""

    tenant_id: str
    name: str
    """The input file's name."""
    fingerprint: str
    """Of the file and the options together; hexadecimal."""
    shape: Shape
    options: BatchOptions = field(default_factory=BatchOptions)
    limit_usd: Decimal | None = None
    parent_id: UUID | None = None
    """The batch whose failed lines it asks again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as its row tells."""

    id: UUID
    tenant_id: str
    name: str
    shape: Shape
    state: BatchState
    imported_lines: int
    total_lines: int | None
    """None until the input's end was seen."""
    settled_lines: int
    """Every line up to this one has ended, as far as the feeder has looked."""
    limit_usd: Decimal | None
    parent_id: UUID | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Slice:
    """Jobs of one tenant for one message on the broker's queue."""

    tenant_id: str
    job_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line that can be asked."""

    line: int
    """From 1; blank lines are not counted."""
    body: str
    """Its message, as JSON."""


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that cannot be asked: it ends as failed without a run."""

    line: int
    body: str
    """A message that stands in for it, as JSON."""
    result: str
    """What the user gets, as JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one line ended."""

    line: int
    custom_id: str | None
    body: dict[str, Any]
    """The job's result."""
    created: int
    """When it ended, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What has come of a batch up to now."""

    states: dict[str, int]
    """Jobs by state."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: Decimal
    """Of every attempt whose price is known, those that failed included."""
