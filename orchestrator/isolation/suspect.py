"""Who is a suspect, how one is asked for, and how long one waits before it is tried again."""

from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from llm_pool.types import CompletionRequest, CompletionResponse
from shared.errors import LLMYardError

SUSPECT_AFTER: Final = 2
"""Crashes. One may be anybody's fault: of all jobs that were in hand, or of the machine."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A job that may have been what killed its workers."""

    job_id: UUID
    crash_count: int


class SuspectDiedError(LLMYardError):
    """The process of a suspect ended without an answer; `str()` is how, for the evidence."""


class SuspectPool(Protocol):
    """What the runner knows of it."""

    async def complete(self, suspect: Suspect, request: CompletionRequest) -> CompletionResponse:
        """Answer as `CompletionPool.complete` does, in a process that takes nobody with it.

        Raises:
            SuspectDiedError: that process died, or went silent.
            RunCrashedError: a surprise in it.
            LLMError, InputError: what its pool raised. No process could be started: LLMUnavailableError.
        """


def is_suspect(crash_count: int) -> bool:
    """Whether a job runs in a process of its own."""
    return crash_count >= SUSPECT_AFTER


def choose_wait_seconds(crash_count: int, lease_seconds: float) -> float:
    """Longer after each crash in a process of its own: a machine that was short of memory gets time to recover."""
    return lease_seconds / 3 * max(0, crash_count - SUSPECT_AFTER)
