"""Who is a suspect, how one is asked for, and how long one waits before it is tried again."""

from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from llm_pool.types import CompletionRequest, CompletionResponse
from shared.errors import LLMYardError

SUSPECT_AFTER: Final = 2
"""Crashes. One may be anybody's fault: of all jobs that were in hand, or of the machine."""
FOREIGN_SUSPECT_AFTER: Final = 1
"""Of a job that may run foreign code. A second worker is not risked: the first may be blocked still, and then nobody
works."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A job that may have been what killed its workers."""

    job_id: UUID
    crash_count: int


class SuspectDiedError(LLMYardError):
    """The process of a suspect ended without an answer; `str()` is how, for the evidence."""

    def __init__(self, last_words: str, *, wants_memory: bool = False) -> None:
        super().__init__(last_words)
        self.wants_memory = wants_memory
        """As far as one can tell, the kernel took it: others of its kind need not be worse than it."""


class SuspectPool(Protocol):
    """What the runner knows of it."""

    async def complete(self, suspect: Suspect, request: CompletionRequest) -> CompletionResponse:
        """Answer as `CompletionPool.complete` does, in a process that takes nobody with it.

        Raises:
            SuspectDiedError: that process died, or went silent.
            RunCrashedError: a surprise in it.
            LLMError, InputError: what its pool raised. No process could be started: LLMUnavailableError.
        """

    def distrusts(self, model: str) -> bool:
        """Whether foreign code of this group has just killed its process, and there is room for another one.

        It may be asked of jobs that never crashed. Where there is no room they take their chance among the others:
        waiting here, they would keep the places of those who have nothing to do with it.
        """


def is_suspect(crash_count: int, *, runs_foreign_code: bool) -> bool:
    """Whether a job runs in a process of its own."""
    return crash_count >= (FOREIGN_SUSPECT_AFTER if runs_foreign_code else SUSPECT_AFTER)


def choose_wait_seconds(crash_count: int, lease_seconds: float) -> float:
    """Longer after each crash beyond the second: a machine that was short of memory gets time to recover."""
    return lease_seconds / 3 * max(0, crash_count - SUSPECT_AFTER)
