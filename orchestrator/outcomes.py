"""What a run ended with. Expected failure is a value here; only surprises are exceptions."""

from dataclasses import dataclass
from typing import Any, Final

from orchestrator.jobs.sweeps import Waiting
from shared.attempts import Attempt

POLITE_REPLY: Final = "I'm having trouble processing your request right now. Please try again in a moment."
"""What the user reads while the job waits, or when it failed."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The job is answered."""

    result: dict[str, Any]
    """What the poller gets; JSON."""
    attempts: tuple[Attempt, ...] = ()
    waiting_tasks: tuple[str, ...] = ()
    """Further Celery tasks, sent for the same message, that get the same result."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended without an answer, and trying again would not help."""

    result: dict[str, Any]
    """What the poller gets; `error` in it says why."""
    attempts: tuple[Attempt, ...] = ()
    waiting_tasks: tuple[str, ...] = ()

    @property
    def error_type(self) -> str:
        return str(self.result["error"]["type"])

    @property
    def error_message(self) -> str:
        return str(self.result["error"]["message"])


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody asked for the job's end before it had an answer."""

    result: dict[str, Any]
    """What the poller gets."""
    waiting_tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parked:
    """No provider can answer now: the job waits in Postgres, and the outage costs it nothing."""

    error_type: str
    error_message: str
    retry_after_seconds: float | None = None
    """What the provider asked for; None leaves it to the policy."""
    attempts: tuple[Attempt, ...] = ()
    result: dict[str, Any] | None = None
    """What the poller gets meanwhile: the polite reply, and where the job waits. Known once it is recorded."""
    waiting_tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The run was interrupted and is handed back, as when its worker was told to stop; another worker goes on."""

    reason: str
    job: Waiting | None = None
    """What to tell another worker. Known once it is recorded."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process that ran the job, and nothing else, died: a crash of this job alone. The ledger says what follows."""

    last_words: str
    """How it ended."""


@dataclass(frozen=True, slots=True)
class HandledElsewhere:
    """Another run has the job; its outcome reaches every task that waits."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that was ended without an answer, and by no run that could tell of it: quarantined, or discarded."""

    result: dict[str, Any]
    """What the poller gets."""
    task_ids: tuple[str, ...]
    """Every Celery task that waits for it."""

    @property
    def error(self) -> str:
        """What these are told."""
        return describe_error(self.result)


def describe_error(result: dict[str, Any]) -> str:
    """The one wording of why there is no answer, whoever tells it."""
    return f"{result['error']['type']}: {result['error']['message']}"


Outcome = Succeeded | Failed | Cancelled | Parked | RetryLater | Crashed | HandledElsewhere
