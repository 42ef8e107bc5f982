"""The schedule, as one table. Each task is harmless when two beats send it twice, and only late when none does."""

from typing import Any, Final

MAINTENANCE_QUEUE: Final = "maintenance"
"""Apart from the jobs' queue: a backlog must not keep the sweeps from running."""

RECONCILE_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 1.0


def _every(task: str, seconds: float) -> dict[str, Any]:
    # A sweep that was not taken in time is worth nothing: the next one does the same.
    return {"task": task, "schedule": seconds, "options": {"queue": MAINTENANCE_QUEUE, "expires": 2 * seconds}}


SCHEDULE: Final = {
    "reconcile-jobs": _every("reconcile_jobs", RECONCILE_SECONDS),
    "drain-failed-requests": _every("drain_failed_requests", DRAIN_SECONDS),
}
