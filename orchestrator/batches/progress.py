"""How a batch gets on, for a bar or a line of text; pure but for the clock it is handed."""

from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

WINDOW_SECONDS: Final = 30.0
"""The rate is that of so long a time, and what is left is reckoned with it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a batch."""

    finished: int
    """Lines that have ended, answered or not."""
    written: int
    """Lines that are in the output file; behind these one is not finished yet."""
    total: int | None
    """None until the input's end was seen."""
    imported: int
    failed: int
    """Of those written."""
    tokens: int
    """Prompts and answers, of those written."""
    cost_usd: Decimal
    """Likewise, as far as prices are known."""
    lines_per_second: float | None = None
    seconds_left: float | None = None


class Pace:
    """Remembers how many lines had ended, and when."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, finished: int) -> float | None:
        """Lines a second over the last while; None while that cannot be said. `now` is monotonic, in seconds."""
        if not self._seen or now > self._seen[-1][0]:
            self._seen.append((now, finished))
        while len(self._seen) > 1 and now - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()
        (began, before), (ended, after) = self._seen[0], self._seen[-1]
        return (after - before) / (ended - began) if ended > began else None


def reckon_seconds_left(total: int | None, finished: int, lines_per_second: float | None) -> float | None:
    """None while that cannot be said."""
    if total is None or not lines_per_second:
        return None
    return (total - finished) / lines_per_second
