"""The schedule, as one table. Each task is harmless when two beats send it twice, and only late when none does."""

from typing import Any, Final

MAINTENANCE_QUEUE: Final = "maintenance"
"""Apart from the jobs' queue: a backlog must not keep the sweeps from running."""

RECONCILE_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 1.0


def _every(task: str, seconds: float) -> dict[str, Any]:
    # Without an expiry: a worker whose clock is ahead of beat's would find every sweep expired.
    return {"task": task, "schedule": seconds, "options": {"queue": MAINTENANCE_QUEUE}}


SCHEDULE: Final = {
    "reconcile-jobs": _every("reconcile_jobs", RECONCILE_SECONDS),
    "drain-failed-requests": _every("drain_failed_requests", DRAIN_SECONDS),
}
