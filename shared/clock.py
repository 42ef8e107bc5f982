"""Time as a seam, so that a test can move it. Leases use the database's clock instead."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The two questions asked of a clock."""

    def now(self) -> datetime:
        """The moment, with time zone UTC; for records."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; for durations."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    # Itself, as it is asked many times a call.
    monotonic = staticmethod(time.monotonic)
