"""What the providers' headers say of our quotas, by the dialect they write them in. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from llm_pool.providers.retry_after import read_wait
from shared.attempts import QuotaReading

Kind = Literal["requests", "tokens", "input_tokens", "output_tokens"]
LARGEST_COUNT = 2**53
"""A larger number is a provider's mistake, and no count."""


@dataclass(frozen=True, slots=True)
class QuotaHeaders:
    """The names of the headers, in lower case, that tell of one quota."""

    kind: Kind
    period: Literal["minute", "day"]
    limit: str
    remaining: str
    reset: str
    """A wait or a moment, in any form that `parse_wait` knows."""
    counts_by_the_second: bool = False
    """As Together does, who names the same limits by the minute; so does `read_quota`."""


HeaderDialect = tuple[QuotaHeaders, ...]


def _openai(name: str, kind: Kind, period: Literal["minute", "day"] = "minute") -> QuotaHeaders:
    return QuotaHeaders(
        kind, period, f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}"
    )


def _anthropic(name: str, kind: Kind) -> QuotaHeaders:
    prefix = f"anthropic-ratelimit-{name}"
    return QuotaHeaders(kind, "minute", f"{prefix}-limit", f"{prefix}-remaining", f"{prefix}-reset")


NONE: HeaderDialect = ()
OPENAI: HeaderDialect = (
    _openai("requests", "requests"),
    _openai("tokens", "tokens"),
    _openai("project-tokens", "tokens"),
)
ANTHROPIC: HeaderDialect = (
    _anthropic("requests", "requests"),
    _anthropic("tokens", "tokens"),
    _anthropic("input-tokens", "input_tokens"),
    _anthropic("output-tokens", "output_tokens"),
)
GROQ: HeaderDialect = (_openai("requests", "requests", "day"), _openai("tokens", "tokens"))
TOGETHER: HeaderDialect = (
    QuotaHeaders("requests", "minute", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", True),
    QuotaHeaders("tokens", "minute", "x-tokenlimit-limit", "x-tokenlimit-remaining", "x-ratelimit-reset", True),
)


def read_quota(headers: Mapping[str, str], dialect: HeaderDialect, now: datetime) -> tuple[QuotaReading, ...]:
    """One reading for each quota that is told; of two of the same kind and period the scarcer.

    `headers` has lower-case names, or does not care for case.
    """
    readings: dict[tuple[Kind, str], QuotaReading] = {}
    for names in dialect:
        if names.remaining in headers:
            reading = _read_one(headers, names, now)
            known = readings.get((names.kind, names.period))
            if known is None or _count_left(reading) < _count_left(known):
                readings[names.kind, names.period] = reading
    return tuple(readings.values())


def choose_reset(readings: Sequence[QuotaReading]) -> float | None:
    """Seconds until every quota that is used up is there again; None where none is, or no one says when."""
    resets = [reading.resets_in_seconds for reading in readings if reading.remaining == 0]
    return max((seconds for seconds in resets if seconds is not None), default=None)


def _read_one(headers: Mapping[str, str], names: QuotaHeaders, now: datetime) -> QuotaReading:
    limit = parse_count(headers.get(names.limit))
    remaining = parse_count(headers.get(names.remaining))
    reading = QuotaReading(names.kind, names.period, limit, remaining, read_wait(headers, names.reset, now))
    return _spread_over_a_minute(reading) if names.counts_by_the_second else reading


def _spread_over_a_minute(reading: QuotaReading) -> QuotaReading:
    """What is left of a second tells nothing of the minute, unless it is nothing."""
    limit = None if reading.limit is None else reading.limit * 60
    return replace(reading, limit=limit, remaining=0 if reading.remaining == 0 else None)


def parse_count(text: str | None) -> int | None:
    """A number of requests or tokens, which some write with a fraction."""
    try:
        count = int(float(text or ""))
    except (ValueError, OverflowError):
        return None
    return count if 0 <= count <= LARGEST_COUNT else None


def _count_left(reading: QuotaReading) -> float:
    return float("inf") if reading.remaining is None else reading.remaining
