"""Prometheus: what is counted, under which names, and how it is shown. What a call was like, the middlewares say.

Labels are those of the catalogue and of our own error classes, never a text of a provider's: their number is bounded.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from llm_pool.catalog import Deployment
from shared import errors
from shared.attempts import Attempt
from shared.errors import ConfigurationError, LLMYardError

Status = Literal["success", "cached", "error", "cancelled"]

SECONDS_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
NOBODY: Final = "none"
"""Label of what no deployment was asked for."""
OTHER: Final = "other"
"""Label of what is none of ours."""
_STATUSES: Final[tuple[Status, ...]] = ("success", "cached", "error", "cancelled")
_ERROR_TYPES: Final = frozenset(
    {name for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, LLMYardError)}
    | {"CancelledError"}
)
_ACCOUNTS: Final = frozenset({"day", "tenant", "key", "call"})
_LIVE_GAUGES: Final = re.compile(r"gauge_live\w+_(\d+)\.db")


@dataclass(frozen=True, slots=True)
class Exposition:
    """All metrics as text."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class _Series:
    """The series of one deployment, looked up once: finding them by label costs more than counting."""

    requests: dict[Status, Counter]
    latency: Histogram
    prompt_tokens: Counter
    completion_tokens: Counter
    cost: Counter
    active: Gauge
    waits: Counter
    wait_seconds: Histogram


class Metrics:
    """The metrics of one process; with a directory, of all processes of a machine that share it.

    prometheus_client decides by PROMETHEUS_MULTIPROC_DIR, when it is imported, where values are kept. There they go by
    process: make one `Metrics` in each.
    """

    def __init__(self, directory: Path | None = None) -> None:
        own = CollectorRegistry()
        self.registry = own
        """What is shown."""
        if directory is not None:
            self.registry = CollectorRegistry()
            MultiProcessCollector(self.registry, str(directory))  # type: ignore[no-untyped-call] # the library's
        self._define(own)
        self._series: dict[str, _Series] = {}
        self._quota_gauges: dict[tuple[str, str], tuple[Gauge, Gauge]] = {}

    def watch(self, deployments: Iterable[Deployment]) -> None:
        """All that calls may name; what they name besides is counted under `none`."""
        self._series |= {each.name: self._find_series(each.provider, each.model) for each in deployments}

    def expose(self, accept: str = "") -> Exposition:
        """`accept` is the header of that name."""
        encode, content_type = choose_encoder(accept)
        return Exposition(encode(self.registry), content_type)

    def count_request(self, deployment: str | None, status: Status) -> None:
        self._get(deployment).requests[status].inc()

    def observe_latency(self, deployment: str, seconds: float) -> None:
        self._get(deployment).latency.observe(seconds)

    def count_attempt(self, attempt: Attempt) -> None:
        """Its tokens and its cost, where they are known."""
        series = self._get(attempt.deployment)
        if attempt.usage is not None:
            series.prompt_tokens.inc(attempt.usage.prompt_tokens)
            series.completion_tokens.inc(attempt.usage.completion_tokens)
        if attempt.cost_usd:
            series.cost.inc(float(attempt.cost_usd))

    def count_error(self, deployment: Deployment | None, error_type: str) -> None:
        provider = NOBODY if deployment is None else deployment.provider
        self._errors.labels(provider, error_type if error_type in _ERROR_TYPES else OTHER).inc()

    def count_cache(self, found: Literal["hit", "miss"]) -> None:
        (self._cache_hits if found == "hit" else self._cache_misses).inc()

    def observe_wait(self, deployment: str, seconds: float) -> None:
        series = self._get(deployment)
        series.waits.inc()
        series.wait_seconds.observe(seconds)

    def change_active(self, deployment: str, by: int) -> None:
        self._get(deployment).active.inc(by)

    def count_budget_alert(self, account: str) -> None:
        """`account` as `LLMBudgetExceededError` names it; whose it is does not become a label."""
        kind = account.partition(":")[0]
        self._budget_alerts.labels(kind if kind in _ACCOUNTS else OTHER).inc()

    def show_quota(self, deployment: str, kind: str, limit: int | None, remaining: int | None) -> None:
        gauges = self._quota_gauges.get((deployment, kind))
        if gauges is None:
            gauges = self._quota_limit.labels(deployment, kind), self._quota_remaining.labels(deployment, kind)
            self._quota_gauges[deployment, kind] = gauges
        for gauge, value in zip(gauges, (limit, remaining), strict=True):
            if value is not None:
                gauge.set(value)

    def count_quota_warning(self, deployment: str, kind: str) -> None:
        self._quota_warnings.labels(deployment, kind).inc()

    def _get(self, deployment: str | None) -> _Series:
        return self._series.get(deployment or NOBODY) or self._nobody

    @cached_property
    def _nobody(self) -> _Series:
        return self._find_series(NOBODY, NOBODY)

    def _define(self, registry: CollectorRegistry) -> None:
        def count(name: str, description: str, *labels: str) -> Counter:
            return Counter(name, description, labels, registry=registry)

        by_model = ("provider", "model")
        self._requests = count("llm_requests", "Requests by how they ended.", *by_model, "status")
        self._tokens = count("llm_tokens", "Tokens as providers counted them.", *by_model, "type")
        self._cost = count("llm_cost_usd", "USD, where the price is known.", *by_model)
        self._errors = count("llm_errors", "Tries that failed.", "provider", "error_type")
        self._cache_hits = count("llm_cache_hits", "Requests answered from the cache.")
        self._cache_misses = count("llm_cache_misses", "Requests that the cache had no answer for.")
        self._waits = count("llm_rate_limit_waits", "Waits for a permit.", "provider")
        self._budget_alerts = count("llm_budget_alerts", "Budgets that are nearly used up, told once each.", "account")
        self._quota_warnings = count("llm_quota_warnings", "Quotas that are nearly used up.", "deployment", "kind")
        self._define_others(registry)

    def _define_others(self, registry: CollectorRegistry) -> None:
        def measure(name: str, description: str, *labels: str) -> Histogram:
            return Histogram(name, description, labels, buckets=SECONDS_BUCKETS, registry=registry)

        def show(name: str, description: str, mode: Literal["livesum", "livemostrecent"], *labels: str) -> Gauge:
            return Gauge(name, description, labels, registry=registry, multiprocess_mode=mode)

        self._latency = measure("llm_request_latency_seconds", "Of requests that were answered.", "provider", "model")
        self._wait_seconds = measure("llm_rate_limit_wait_seconds", "How long a permit was waited for.", "provider")
        self._active = show("llm_active_requests", "Calls at a provider at this moment.", "livesum", "provider")
        quota: tuple[Literal["livemostrecent"], str, str] = ("livemostrecent", "deployment", "kind")
        self._quota_remaining = show("llm_quota_remaining", "What a provider last said is left.", *quota)
        self._quota_limit = show("llm_quota_limit", "What a provider allows.", *quota)

    def _find_series(self, provider: str, model: str) -> _Series:
        """A child of each family; from then on they are shown, with 0."""
        return _Series(
            requests={status: self._requests.labels(provider, model, status) for status in _STATUSES},
            latency=self._latency.labels(provider, model),
            prompt_tokens=self._tokens.labels(provider, model, "prompt"),
            completion_tokens=self._tokens.labels(provider, model, "completion"),
            cost=self._cost.labels(provider, model),
            active=self._active.labels(provider),
            waits=self._waits.labels(provider),
            wait_seconds=self._wait_seconds.labels(provider),
        )


def open_metrics(directory: Path | None = None) -> Metrics:
    """The metrics of this process, beside those of the processes that share `directory`.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            forget_the_dead(directory)
        except OSError as error:
            raise ConfigurationError(
                f"PROMETHEUS_MULTIPROC_DIR is {directory}, which cannot be used: {error.strerror}."
            ) from error
    return Metrics(directory)


def forget_the_dead(directory: Path, is_alive: Callable[[int], bool] | None = None) -> None:
    """What processes that are gone had under way is no longer so; what they counted stays.

    Our own number counts as dead: we have only just begun, so that somebody else had it before.
    """
    is_running = is_alive or _is_running
    for file in directory.iterdir():
        found = _LIVE_GAUGES.fullmatch(file.name)
        if found and (int(found[1]) == os.getpid() or not is_running(int(found[1]))):
            file.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
