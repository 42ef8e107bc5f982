"""Tells people that a budget is nearly spent: in the log, wherever else a sink takes it, and by a webhook.

No call waits for any of it, and none fails because of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

import structlog

from shared.errors import LLMError

if TYPE_CHECKING:
    from llm_pool.providers.http import Connections

log = structlog.get_logger()

WEBHOOK_TIMEOUT_SECONDS = 10.0
WEBHOOK_WAITS_SECONDS = (1.0, 5.0, 30.0, 120.0)
"""Between the tries; after the last the alert stands in the log only."""
CLOSING_SECONDS = 2.0
"""What is still under way when the pool closes gets so long."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An account's day reached the share of its budget at which somebody wants to know."""

    account: str
    """`day`, `tenant:ID` or `key:ID`."""
    spent_usd: Decimal
    limit_usd: Decimal
    resets_at: datetime

    def describe(self) -> str:
        return (
            f"The budget of {self.account} is nearly used up: {self.spent_usd.normalize():f} of "
            f"{self.limit_usd.normalize():f} USD are spent; it resets at {self.resets_at.isoformat()}."
        )


class AlertSink(Protocol):
    """Takes alerts, at once and without raising; what takes time it does later."""

    def take(self, alert: Alert) -> None:
        """Once for each account and day, in one process of the fleet."""

    async def aclose(self) -> None:
        """Finish soon, or let it be."""


class AlertLog:
    """One warning in the log."""

    def take(self, alert: Alert) -> None:
        """See `AlertSink`."""
        log.warning(
            "budget_threshold_passed",
            account=alert.account,
            spent_usd=str(alert.spent_usd),
            limit_usd=str(alert.limit_usd),
            resets_at=alert.resets_at.isoformat(),
        )

    async def aclose(self) -> None:
        """Nothing is under way."""


class AlertWebhook:
    """Posts each alert as JSON, several times if need be. `text` is what Slack and Mattermost show."""

    def __init__(
        self,
        url: str,
        connections: "Connections",
        waits_seconds: Sequence[float] = WEBHOOK_WAITS_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        closing_seconds: float = CLOSING_SECONDS,
    ) -> None:
        """`connections` are closed by who made them, after this."""
        self._url = url
        self._connections = connections
        self._waits_seconds = waits_seconds
        self._sleep = sleep
        self._closing_seconds = closing_seconds
        self._posting: set[asyncio.Task[None]] = set()

    def take(self, alert: Alert) -> None:
        """See `AlertSink`."""
        posting = asyncio.create_task(self._post(alert))
        self._posting.add(posting)
        posting.add_done_callback(self._posting.discard)

    async def aclose(self) -> None:
        """See `AlertSink`."""
        if not self._posting:
            return
        _, unfinished = await asyncio.wait(self._posting, timeout=self._closing_seconds)
        for posting in unfinished:
            posting.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _post(self, alert: Alert) -> None:
        for wait in (*self._waits_seconds, None):
            problem = await self._try_to_post(alert)
            if problem is None:
                return
            # The address may hold a secret, so no log names it.
            log.warning("alert_not_delivered", account=alert.account, problem=problem, retry_in_seconds=wait)
            if wait is not None:
                await self._sleep(wait)

    async def _try_to_post(self, alert: Alert) -> str | None:
        """What went wrong, if anything."""
        try:
            answer = await self._connections.post_json(self._url, {}, _build_body(alert), WEBHOOK_TIMEOUT_SECONDS)
        except LLMError as error:
            return type(error).__name__
        return None if 200 <= answer.status < 300 else f"HTTP {answer.status}"


def _build_body(alert: Alert) -> dict[str, object]:
    """Amounts as texts, which lose no digits on their way."""
    return {
        "event": "budget_threshold_passed",
        "text": alert.describe(),
        "account": alert.account,
        "spent_usd": str(alert.spent_usd),
        "limit_usd": str(alert.limit_usd),
        "resets_at": alert.resets_at.isoformat(),
    }
