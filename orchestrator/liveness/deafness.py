"""Is this worker deaf: alive, with room for jobs, and it hears nothing of a broker that answers others? Pure.

Known of Celery workers after a broker came back (celery #8030, #10205): the process looks well and consumes nothing.
"""

from dataclasses import dataclass
from typing import Final

LONGEST_RESTARTS: Final = 3
"""A worker begins anew only after a life of this many times the silence allowed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one look."""

    at: float
    has_heard: bool
    """Since the look before: it got a job, was answered that there is none, or had no room for one."""
    broker_answers: bool
    """A connection made just now was answered. Only asked where nothing was heard."""


@dataclass(frozen=True, slots=True)
class Ear:
    """How long a worker could have heard and did not."""

    started_at: float
    """Of its process."""
    unheard_since: float | None = None

    def after(self, look: Look) -> "Ear":
        """A broker that is away is not heard by anyone; once it is back the count begins."""
        if look.has_heard or not look.broker_answers:
            return Ear(self.started_at)
        return Ear(self.started_at, look.at if self.unheard_since is None else self.unheard_since)

    def is_deaf(self, now: float, silent_seconds: float) -> bool:
        if self.unheard_since is None or now - self.started_at < LONGEST_RESTARTS * silent_seconds:
            return False
        return now - self.unheard_since >= silent_seconds
