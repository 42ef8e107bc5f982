"""Celery's scheduler, less its trust in the wall clock: set back by minutes, it would send nothing until they are over.

It goes by the moment when each entry last ran, and keeps that on disk: a beat that is started after the clock was set
back would wait as well.
"""

from typing import Any

import structlog
from celery.beat import PersistentScheduler

log = structlog.get_logger()


class SteadyScheduler(PersistentScheduler):  # type: ignore[misc] # Celery publishes no types
    """Takes an entry that last ran in the future as having run just now."""

    def tick(self, *arguments: Any, **options: Any) -> float:
        """Send what is due; returns the seconds until there is more."""
        self._leave_the_future()
        seconds: float = super().tick(*arguments, **options)
        return seconds

    def _leave_the_future(self) -> None:
        ahead = [entry for entry in self.schedule.values() if entry.last_run_at > entry.default_now()]
        for entry in ahead:
            entry.last_run_at = entry.default_now()
        if ahead:
            log.warning("clock_set_back", entries=len(ahead))
            # It is ordered by moments of the old clock, and is made anew where there is none.
            self._heap = None
