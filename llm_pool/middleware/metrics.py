"""What a call was like, told to the metrics when it ends. Three places: around the request, the try, and the call."""

import asyncio
from collections.abc import Iterable
from typing import Literal, Protocol

from llm_pool.call import AttemptCall, AttemptHandler, Call, RequestHandler
from llm_pool.catalog import Deployment
from llm_pool.money.alerts import Alert
from llm_pool.status.quota import WarningMeter
from llm_pool.status.status_board import QuotaMeter
from llm_pool.types import Answer, Response
from shared.attempts import Attempt
from shared.errors import LLMError


class Meter(WarningMeter, QuotaMeter, Protocol):
    """What is counted; `llm_pool.status.metrics.Metrics` does, which is loaded only where metrics are wanted."""

    def watch(self, deployments: Iterable[Deployment], /) -> None: ...

    def count_request(
        self, deployment: str | None, status: Literal["success", "cached", "error", "cancelled"], /
    ) -> None: ...

    def observe_latency(self, deployment: str, seconds: float, /) -> None: ...

    def count_attempt(self, attempt: Attempt, /) -> None: ...

    def count_error(self, deployment: Deployment | None, error_type: str, /) -> None: ...

    def count_cache(self, found: Literal["hit", "miss"], /) -> None: ...

    def observe_wait(self, deployment: str, seconds: float, /) -> None: ...

    def change_active(self, deployment: str, by: int, /) -> None: ...

    def count_budget_alert(self, account: str, /) -> None: ...


class NoMeter:
    """Counts nothing, where nobody would read it."""

    def watch(self, deployments: Iterable[Deployment], /) -> None: ...

    def count_request(self, deployment: str | None, status: str, /) -> None: ...

    def observe_latency(self, deployment: str, seconds: float, /) -> None: ...

    def count_attempt(self, attempt: Attempt, /) -> None: ...

    def count_error(self, deployment: Deployment | None, error_type: str, /) -> None: ...

    def count_cache(self, found: str, /) -> None: ...

    def observe_wait(self, deployment: str, seconds: float, /) -> None: ...

    def change_active(self, deployment: str, by: int, /) -> None: ...

    def count_budget_alert(self, account: str, /) -> None: ...

    def count_quota_warning(self, deployment: str, kind: str, /) -> None: ...

    def show_quota(self, deployment: str, kind: str, limit: int | None, remaining: int | None, /) -> None: ...


class RequestMetrics:
    """Request ring, around the cache: each request once, under who answered it or was asked last."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def __call__(self, call: Call, proceed: RequestHandler) -> Response:
        try:
            response = await proceed(call)
        except asyncio.CancelledError:
            self._meter.count_request(_find_last_asked(call), "cancelled")
            raise
        except BaseException as error:
            self._count_failure(call, error)
            raise
        else:
            self._count_answer(call, response)
            return response
        finally:
            self._count_the_way(call)

    def _count_answer(self, call: Call, response: Response) -> None:
        """Answers out of the cache would make the models look faster than they are."""
        if call.cache == "hit":
            self._meter.count_request(response.deployment, "cached")
        else:
            self._meter.count_request(response.deployment, "success")
            self._meter.observe_latency(response.deployment, response.latency_seconds)

    def _count_failure(self, call: Call, error: BaseException) -> None:
        self._meter.count_request(_find_last_asked(call), "error")
        if not call.attempts:
            self._meter.count_error(None, type(error).__name__)

    def _count_the_way(self, call: Call) -> None:
        for attempt in call.attempts:
            self._meter.count_attempt(attempt)
        for wait in call.waits:
            self._meter.observe_wait(wait.deployment, wait.seconds)
        if call.cache is not None:
            self._meter.count_cache(call.cache)


class ErrorMetrics:
    """Attempt ring, directly inside Retry: every try that failed, those included that our own rules did not let go."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        try:
            return await proceed(call)
        except (LLMError, asyncio.CancelledError) as error:
            self._meter.count_error(call.deployment, type(error).__name__)
            raise


class ActiveMetrics:
    """Attempt ring, directly outside Ledger: calls that are with a provider; waits for permits and retries are not."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        self._meter.change_active(call.deployment.name, 1)
        try:
            return await proceed(call)
        finally:
            self._meter.change_active(call.deployment.name, -1)


class AlertMetrics:
    """Counts alerts of budgets; an `AlertSink`."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def take(self, alert: Alert) -> None:
        """See `AlertSink`."""
        self._meter.count_budget_alert(alert.account)

    async def aclose(self) -> None:
        """Nothing is under way."""


def _find_last_asked(call: Call) -> str | None:
    return call.attempts[-1].deployment if call.attempts else None
