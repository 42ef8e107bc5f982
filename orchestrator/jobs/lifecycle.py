"""The states of a job and the ways between them; pure.

queued ──► running ──► succeeded | failed | cancelled
  ▲          │ │ └───► quarantined          after `MAX_CRASHES` runs that ended without an outcome
  │          │ └─────► parked ──► discarded
  ├──────────┘            │
  └───────────────────────┘                 replay, hand-back, expired lease

Cancelling ends what is queued or parked likewise.
"""

from enum import StrEnum
from typing import Final

MAX_CRASHES: Final = 5
"""A job that took this many runs down with it is not given to another worker."""


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"
    QUARANTINED = "quarantined"

    @property
    def is_final(self) -> bool:
        """A final state never changes."""
        return not NEXT_STATES[self]


NEXT_STATES: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.PARKED,
            JobState.QUEUED,
            JobState.QUARANTINED,
        }
    ),
    JobState.PARKED: frozenset({JobState.QUEUED, JobState.DISCARDED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.DISCARDED: frozenset(),
    JobState.QUARANTINED: frozenset(),
}


def state_after_crash(crash_count: int) -> JobState:
    """Where a job goes whose run was never heard of again; `crash_count` includes that run."""
    return JobState.QUARANTINED if crash_count >= MAX_CRASHES else JobState.QUEUED
