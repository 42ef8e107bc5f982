"""The schedule, as one table. Each task is harmless when two beats send it twice, and only late when none does."""

from typing import Any, Final

MAINTENANCE_QUEUE: Final = "maintenance"
"""Apart from the jobs' queue: a backlog must not keep the sweeps from running."""

RECONCILE_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 1.0
EXPIRES_SECONDS: Final = 600.0
"""Bounds what piles up while there is no worker. Longer than clocks differ: a worker goes by its own."""


def _every(task: str, seconds: float) -> dict[str, Any]:
    return {"task": task, "schedule": seconds, "options": {"queue": MAINTENANCE_QUEUE, "expires": EXPIRES_SECONDS}}


SCHEDULE: Final = {
    "reconcile-jobs": _every("reconcile_jobs", RECONCILE_SECONDS),
    "drain-failed-requests": _every("drain_failed_requests", DRAIN_SECONDS),
}
