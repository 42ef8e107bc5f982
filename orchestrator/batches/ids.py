"""How batches and their lines are numbered; pure.

The last 32 bits of a line's job are the line's number, the rest is the batch's: all lines of a batch lie side by side
in their order wherever jobs are sorted by id, and to take the same line in twice is to name the same job twice.
"""

from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from shared.errors import InputError

_LINE_BITS: Final = 32
MOST_LINES: Final = 2**_LINE_BITS - 1


def build_batch_id() -> UUID:
    """In the order of time, and ending in eight zeros."""
    return UUID(int=uuid7().int >> _LINE_BITS << _LINE_BITS)


def build_job_id(batch_id: UUID, line: int) -> UUID:
    """The job of a line, which counts from 1; 0 stands before the first."""
    return UUID(int=batch_id.int | line)


def find_last_id(batch_id: UUID) -> UUID:
    """No line of the batch comes after it."""
    return build_job_id(batch_id, MOST_LINES)


def read_line(job_id: UUID) -> int:
    """The number of a job's line in its batch."""
    return job_id.int & MOST_LINES


def build_message_id(batch_id: UUID, line: int) -> str:
    """What a line's message is called among the tenant's."""
    return f"{batch_id}:{line:09d}"


def parse_batch_id(text: str) -> UUID:
    """
    Raises:
        InputError: it is no UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise InputError("batch", f"{text!r} is no id", "use one that `llmyard batch list` shows") from None
