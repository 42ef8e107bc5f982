"""Model groups whose foreign code has just killed a process: what else is asked of them may do the same.

So they are asked apart too, before they take a whole worker along as the first one did; for a while only, as most of
them are innocent.
"""

from typing import Final

from shared.clock import Clock

DISTRUST_SECONDS: Final = 60.0
"""After each death: poison comes in crowds, and a group that is asked less often has killed less often."""


class Distrust:
    """Of one worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._died_at: dict[str, float] = {}

    def note(self, model: str) -> None:
        self._died_at[model] = self._clock.monotonic()

    def holds(self, model: str) -> bool:
        died_at = self._died_at.get(model)
        return died_at is not None and self._clock.monotonic() - died_at < DISTRUST_SECONDS
