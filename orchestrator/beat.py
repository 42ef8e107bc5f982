"""The schedule, as one table. Each task is harmless when two beats send it twice, and only late when none does.

One message stands for all that is to be looked after: it costs beat, broker and worker more than the look does.
"""

from typing import Any, Final

MAINTENANCE_QUEUE: Final = "maintenance"
"""Apart from the jobs' queue: a backlog must not keep the sweeps from running."""

SWEEP_SECONDS: Final = 5.0
"""What parks is due after this at the earliest, so that the sweep that comes meanwhile sees it in time."""
EXPIRES_SECONDS: Final = 900.0
"""Bounds what piles up while there is no worker. Longer than clocks differ: a worker 5 minutes ahead takes what a beat
5 minutes behind has sent.
"""


def _every(task: str, seconds: float) -> dict[str, Any]:
    return {"task": task, "schedule": seconds, "options": {"queue": MAINTENANCE_QUEUE, "expires": EXPIRES_SECONDS}}


SCHEDULE: Final = {"sweep": _every("sweep", SWEEP_SECONDS)}
