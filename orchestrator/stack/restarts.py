"""Whether a child that died is started again, and when. Pure: the supervisor does it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Patient with a process that was killed now and then, not with one that cannot live."""

    most_deaths: int = 5
    """Within the window; one more and it is given up."""
    window_seconds: float = 60.0
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 10.0

    def decide_delay(self, deaths: Sequence[float], now: float) -> float | None:
        """Seconds until the next start, or None to give up. `deaths` are moments up to and including this one."""
        recent = [death for death in deaths if now - death < self.window_seconds]
        if len(recent) > self.most_deaths:
            return None
        return min(self.first_delay_seconds * 2.0 ** max(len(recent) - 1, 0), self.longest_delay_seconds)
