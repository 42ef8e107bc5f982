"""A sliding window that counts by parts, so that it holds as many numbers as it has parts, not as it has calls."""

from math import floor

from llm_pool.stores.permits.base import Period

_TICK_SECONDS = 0.001
"""Added to a wait, so that rounding brings nobody back a moment too soon."""


class Window:
    """Counts of the last minute or day. Errs to the side of caution: a part is forgotten when all of it has left."""

    def __init__(self, period: Period) -> None:
        self._part_seconds = period.part_seconds
        self._span_seconds = period.span_seconds
        self._parts: dict[int, int] = {}
        """Count by number of the part since the clock's start; oldest first."""
        self.used = 0

    def forget(self, now: float) -> None:
        """To be called before `used` is read."""
        oldest = floor((now - self._span_seconds) / self._part_seconds)
        while self._parts and (part := next(iter(self._parts))) < oldest:
            self.used -= self._parts.pop(part)

    def add(self, count: int, now: float) -> None:
        part = floor(now / self._part_seconds)
        self._parts[part] = self._parts.get(part, 0) + count
        self.used += count

    def correct(self, count: int, counted_at: float) -> None:
        """Add to what was counted then, or take from it, unless it has left."""
        part = floor(counted_at / self._part_seconds)
        if part in self._parts:
            self._parts[part] += count
            self.used += count

    def find_wait(self, excess: int, now: float) -> float:
        """Seconds until so much has left; if there is never so much, until all has."""
        left_at = now
        for part, count in self._parts.items():
            left_at = (part + 1) * self._part_seconds + self._span_seconds
            excess -= count
            if excess <= 0:
                break
        return max(0.0, left_at - now) + _TICK_SECONDS
