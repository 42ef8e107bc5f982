"""Ends what takes too long, with one timer for all calls of a pool: the loop's own cost a timer for each."""

import asyncio
from collections.abc import Callable
from math import inf


class Deadlines:
    """Of one event loop. The timer is set for the earliest end; most calls are answered long before theirs."""

    def __init__(self) -> None:
        self._ends: dict[object, tuple[float, Callable[[], object]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def add(self, who: object, ends_at: float, give_up: Callable[[], object]) -> None:
        """Have `give_up` called at a moment of the loop's clock, unless whoever it is for is discarded before."""
        self._ends[who] = ends_at, give_up
        if ends_at < self._rings_at:
            self._set_timer(ends_at)

    def discard(self, who: object) -> None:
        self._ends.pop(who, None)

    def close(self) -> None:
        """Nobody is ended any more."""
        self._ends.clear()
        self._set_timer(inf)

    def _ring(self) -> None:
        late = [who for who, (ends_at, _) in self._ends.items() if ends_at <= self._rings_at]
        for who in late:
            _, give_up = self._ends.pop(who)
            give_up()
        self._set_timer(min((ends_at for ends_at, _ in self._ends.values()), default=inf))

    def _set_timer(self, rings_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if rings_at == inf else asyncio.get_running_loop().call_at(rings_at, self._ring)
        self._rings_at = rings_at
