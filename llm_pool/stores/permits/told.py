"""What providers said is left of our quotas, as bounds beside our own limits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

from llm_pool.stores.permits.base import PERIODS, Need, Told
from shared.attempts import QuotaReading

TOLD: Mapping[str, Told] = {
    "requests": "told_requests",
    "tokens": "told_tokens",
    "input_tokens": "told_input_tokens",
    "output_tokens": "told_output_tokens",
}
"""Name of the bound by kind of the reading."""
PERIOD_SECONDS = {"minute": PERIODS.minute.seconds, "day": PERIODS.day.seconds}


@dataclass(slots=True)
class Bound:
    """So much is left, and fills up evenly until the reset; what we take since is counted off."""

    left: float
    """At `counted_at`."""
    counted_at: float
    ceiling: float
    refill_per_second: float
    read_at: float
    """What was reserved before is in the provider's own count already."""
    ends_at: float
    """After that the reading says nothing any more."""

    def count_left(self, now: float) -> float:
        return min(self.ceiling, self.left + self.refill_per_second * (now - self.counted_at))

    def take(self, count: int, now: float) -> None:
        self.left, self.counted_at = self.count_left(now) - count, now

    def find_wait(self, count: int, now: float) -> float:
        """Seconds until there is room, at the latest at the reset."""
        lacking, until_end = count - self.count_left(now), self.ends_at - now
        if not self.refill_per_second or count > self.ceiling:
            return until_end
        return min(until_end, lacking / self.refill_per_second)


class ToldBounds:
    """Those of one deployment, by kind and period."""

    def __init__(self) -> None:
        self._bounds: dict[tuple[str, str], Bound] = {}

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def forget(self, now: float) -> None:
        for key in [key for key, bound in self._bounds.items() if bound.ends_at <= now]:
            del self._bounds[key]

    def lower(self, readings: tuple[QuotaReading, ...], now: float) -> None:
        """A reading that leaves more than is known to be left is not believed: it may be older than what was taken."""
        for reading in readings:
            known = self._bounds.get((reading.kind, reading.period))
            if known is None or (reading.remaining is not None and reading.remaining < known.count_left(now)):
                bound = build_bound(reading, now)
                if bound is not None:
                    self._bounds[reading.kind, reading.period] = bound

    def find_shortages(self, need: Need, now: float) -> Iterator[tuple[Told, float]]:
        """The bounds that have no room, each with the seconds until they may have."""
        for (kind, _), bound in self._bounds.items():
            count = count_need(need, kind)
            if bound.count_left(now) < count:
                yield TOLD[kind], bound.find_wait(count, now)

    def take(self, need: Need, now: float) -> None:
        for (kind, _), bound in self._bounds.items():
            bound.take(count_need(need, kind), now)

    def give_back(self, counts: Mapping[str, int], reserved_at: float, now: float) -> None:
        """By kind."""
        for (kind, _), bound in self._bounds.items():
            if bound.read_at < reserved_at:
                bound.take(-counts.get(kind, 0), now)


def build_bound(reading: QuotaReading, now: float) -> Bound | None:
    """None where it bounds nothing."""
    seconds = PERIOD_SECONDS[reading.period] if reading.resets_in_seconds is None else reading.resets_in_seconds
    if reading.remaining is None or seconds <= 0:
        return None
    lacking = 0 if reading.limit is None else max(0, reading.limit - reading.remaining)
    ceiling = inf if reading.limit is None else float(max(reading.limit, reading.remaining))
    return Bound(reading.remaining, now, ceiling, lacking / seconds, now, now + seconds)


def count_need(need: Need, kind: str) -> int:
    """How much of it a try takes."""
    if kind == "requests":
        return 1
    if kind == "input_tokens":
        return need.prompt_tokens
    return need.completion_tokens if kind == "output_tokens" else need.tokens


def count_unused(need: Need, used_tokens: int) -> Mapping[str, int]:
    """What a settled permit did not take, by kind. Prompts are counted well; what is left over is of the answer."""
    unused = need.tokens - used_tokens
    return {"tokens": unused, "output_tokens": unused}


def count_given_back(need: Need, *, was_sent: bool) -> Mapping[str, int]:
    """What a released permit gives back, by kind."""
    return {
        "requests": 0 if was_sent else 1,
        "tokens": need.tokens,
        "input_tokens": need.prompt_tokens,
        "output_tokens": need.completion_tokens,
    }
