"""The moment to come back, in every form that providers write it. Pure."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 366 * 86_400.0
"""No provider asks for more: what says so is a mistake, and means nothing."""

_EPOCH_SECONDS_FROM = 1e9
"""2001, which as a wait would be 31 years."""
_EPOCH_MILLISECONDS_FROM = 1e11
"""1973, which as seconds would be the year 5138."""
_UNIT_SECONDS: Mapping[str, float] = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}
_PART = r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)"
_PARTS = re.compile(_PART)
_DURATION = re.compile(rf"(?:{_PART})+")


def read_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds from `retry-after-ms`, else from `Retry-After`.

    `headers` has lower-case names, or does not care for case; `now` is by our clock.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _check(milliseconds / 1000)
    return read_wait(headers, "retry-after", now)


def read_wait(headers: Mapping[str, str], name: str, now: datetime) -> float | None:
    """What the header of that name says, as `parse_wait` understands it, by the clock of whoever answered."""
    text = headers.get(name)
    if text is None:
        return None
    # Most name a duration, which needs no clock: theirs is not read for it, as that would cost more than all the rest.
    seconds = _parse_duration(text.strip())
    return parse_wait(text, _choose_now(headers, now)) if seconds is None else _check(seconds)


def _choose_now(headers: Mapping[str, str], now: datetime) -> datetime:
    """The time by the clock of whoever answered, if the answer tells it: dates in it are meant for that clock."""
    told = _parse_http_date(headers.get("date", ""))
    return now if told is None else _with_zone(told)


def parse_wait(text: str | None, now: datetime) -> float | None:
    """Seconds from `now`, never negative; None for what cannot be understood.

    It may be a number of seconds, whole or not, a duration of Go (`1h2m3.5s`, `6ms`), a date of HTTP or of RFC 3339,
    or a moment in seconds or milliseconds of the epoch: numbers as large as those are no waits.
    """
    if text is None:
        return None
    number = _parse_number(text)
    if number is not None:
        return _check(_read_number(number, now))
    seconds = _parse_duration(text.strip())
    return _check(seconds if seconds is not None else _parse_date(text, now))


def _read_number(number: float, now: datetime) -> float:
    if number >= _EPOCH_MILLISECONDS_FROM:
        return number / 1000 - now.timestamp()
    if number >= _EPOCH_SECONDS_FROM:
        return number - now.timestamp()
    return number


def _parse_number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _parse_duration(text: str) -> float | None:
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in _PARTS.findall(text))


def _parse_date(text: str, now: datetime) -> float | None:
    moment = _parse_rfc_3339(text) or _parse_http_date(text)
    return None if moment is None else (_with_zone(moment) - now).total_seconds()


def _with_zone(moment: datetime) -> datetime:
    # The zone `-0000` says UTC without vouching for it.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse_rfc_3339(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None


def _parse_http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None


def _check(seconds: float | None) -> float | None:
    return None if seconds is None or seconds > LONGEST_SECONDS else max(0.0, seconds)
