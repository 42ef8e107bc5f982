"""What is left of the providers' quotas, as they tell it, or as we count where one tells nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol

import structlog

from llm_pool.catalog import Deployment
from llm_pool.pool_status import DeploymentQuota, QuotaInfo
from shared.attempts import QuotaReading, Usage
from shared.clock import Clock, SystemClock

log = structlog.get_logger()

_SHORTEST_SILENCE: Final = {"minute": timedelta(minutes=1), "day": timedelta(hours=1)}
"""Between two warnings of the same quota: some providers refill theirs all the time and reset within milliseconds."""


class WarningMeter(Protocol):
    """Counts warnings; `llm_pool.status.metrics.Metrics` does."""

    def count_quota_warning(self, deployment: str, kind: str, /) -> None: ...


@dataclass(slots=True)
class _Heard:
    """A reading and when it came."""

    reading: QuotaReading
    at: datetime

    @property
    def resets_at(self) -> datetime | None:
        seconds = self.reading.resets_in_seconds
        return None if seconds is None else self.at + timedelta(seconds=seconds)

    def holds_until_reset(self, now: datetime) -> bool:
        """Which is still to come."""
        return self.resets_at is not None and self.resets_at > now


@dataclass(slots=True)
class _Counted:
    """Our own count of one day of UTC."""

    day: date
    at: datetime
    """Of the last answer."""
    requests: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Known:
    """All that is known of one deployment."""

    deployment: Deployment
    heard: dict[tuple[str, str], _Heard] = field(default_factory=dict)
    counted: _Counted | None = None
    silent_until: dict[str, datetime] = field(default_factory=dict)


class QuotaTracker:
    """Of one process. A warning is given once for each quota and window."""

    def __init__(
        self, warning_threshold: float = 0.8, *, clock: Clock | None = None, meter: WarningMeter | None = None
    ) -> None:
        """`warning_threshold` is the used share of a quota."""
        self._threshold = warning_threshold
        self._clock = clock or SystemClock()
        self._meter = meter
        self._known: dict[str, _Known] = {}

    def update(self, deployment: Deployment, readings: Sequence[QuotaReading]) -> None:
        """What the provider said with an answer or a refusal; the latest holds."""
        now, known = self._clock.now(), self._get(deployment)
        for reading in readings:
            place = reading.kind, reading.period
            if reading.limit is None and place in known.heard:
                reading = replace(reading, limit=known.heard[place].reading.limit)
            known.heard[place] = _Heard(reading, now)
            if reading.limit is not None and reading.remaining is not None:
                self._check(known, reading, reading.limit - reading.remaining, now)

    def increment_local_count(self, deployment: Deployment, usage: Usage | None) -> None:
        """One more answer of a provider that tells nothing, or told of a quota only while it was used up."""
        now, known = self._clock.now(), self._get(deployment)
        if known.heard:
            known.heard = {place: heard for place, heard in known.heard.items() if heard.holds_until_reset(now)}
        today = now.astimezone(UTC).date()
        if known.counted is None or known.counted.day != today:
            known.counted = _Counted(today, now)
        known.counted.at = now
        known.counted.requests += 1
        known.counted.tokens += 0 if usage is None else usage.total_tokens
        if deployment.limits.requests_per_day is None and deployment.limits.tokens_per_day is None:
            return
        for reading, used in _read_count(deployment, known.counted, now):
            if reading.limit is not None:
                self._check(known, reading, used, now)

    def get_status(self) -> tuple[DeploymentQuota, ...]:
        """Of all deployments that answered or refused, by name."""
        now = self._clock.now()
        return tuple(self._describe(known, now) for _, known in sorted(self._known.items()))

    def find_status(self, deployment: str) -> DeploymentQuota | None:
        """None: it has not been asked yet."""
        known = self._known.get(deployment)
        return None if known is None else self._describe(known, self._clock.now())

    def _get(self, deployment: Deployment) -> _Known:
        known = self._known.get(deployment.name)
        if known is None:
            known = self._known[deployment.name] = _Known(deployment)
        return known

    def _check(self, known: _Known, reading: QuotaReading, used: int, now: datetime) -> None:
        assert reading.limit is not None, "checked by the caller"
        if used < reading.limit * self._threshold:
            return
        kind = f"{reading.kind}_per_{reading.period}"
        if now < known.silent_until.get(kind, now):
            return
        resets_in = timedelta(seconds=reading.resets_in_seconds or 0.0)
        known.silent_until[kind] = now + max(resets_in, _SHORTEST_SILENCE[reading.period])
        log.warning(
            "quota_threshold_passed",
            deployment=known.deployment.name,
            kind=kind,
            used=used,
            limit=reading.limit,
            resets_at=(now + resets_in).isoformat(timespec="seconds"),
        )
        if self._meter is not None:
            self._meter.count_quota_warning(known.deployment.name, kind)

    def _describe(self, known: _Known, now: datetime) -> DeploymentQuota:
        deployment = known.deployment
        told = [self._describe_heard(heard, now) for heard in known.heard.values()]
        quotas = [info for info in told if not info.has_lapsed(now)]
        if not quotas and known.counted is not None:
            today = now.astimezone(UTC).date()
            counted = known.counted if known.counted.day == today else _Counted(today, known.counted.at)
            quotas = [self._describe_count(*read, counted.at, now) for read in _read_count(deployment, counted, now)]
        return DeploymentQuota(deployment.name, deployment.provider, deployment.model, tuple(quotas))

    def _describe_heard(self, heard: _Heard, now: datetime) -> QuotaInfo:
        """Once the moment of its reset has passed, a quota is full again unless we hear otherwise."""
        reading, resets_at = heard.reading, heard.resets_at
        if resets_at is not None and resets_at <= now and reading.limit is not None:
            heard = _Heard(replace(reading, remaining=reading.limit, resets_in_seconds=None), heard.at)
        limit, remaining = heard.reading.limit, heard.reading.remaining
        used = None if limit is None or remaining is None else limit - remaining
        return self._build_info(heard.reading, used, heard.resets_at, heard.at)

    def _describe_count(self, reading: QuotaReading, used: int, counted_at: datetime, now: datetime) -> QuotaInfo:
        return self._build_info(reading, used, _Heard(reading, now).resets_at, counted_at, is_counted=True)

    def _build_info(
        self,
        reading: QuotaReading,
        used: int | None,
        resets_at: datetime | None,
        heard_at: datetime,
        *,
        is_counted: bool = False,
    ) -> QuotaInfo:
        is_warning = bool(reading.limit) and used is not None and used >= (reading.limit or 0) * self._threshold
        return QuotaInfo(
            kind=reading.kind,
            period=reading.period,
            limit=reading.limit,
            remaining=reading.remaining,
            used=used,
            resets_at=resets_at,
            heard_at=heard_at,
            is_warning=is_warning,
            is_counted=is_counted,
        )


def _read_count(deployment: Deployment, counted: _Counted, now: datetime) -> tuple[tuple[QuotaReading, int], ...]:
    """Our count as if the provider had told it, with what was used."""
    tomorrow = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
    resets_in_seconds = (tomorrow - now).total_seconds()
    limits = deployment.limits
    requests = _leave(limits.requests_per_day, counted.requests)
    tokens = _leave(limits.tokens_per_day, counted.tokens)
    return (
        (QuotaReading("requests", "day", limits.requests_per_day, requests, resets_in_seconds), counted.requests),
        (QuotaReading("tokens", "day", limits.tokens_per_day, tokens, resets_in_seconds), counted.tokens),
    )


def _leave(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(limit - used, 0)
