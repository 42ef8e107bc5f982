"""Alerts reach whoever shall know, over a webhook that may be out of order, and nobody waits for them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from structlog.testing import capture_logs

from llm_pool.money.alerts import CLOSING_SECONDS, Alert, AlertLog, AlertWebhook
from llm_pool.providers.http import Connections
from tests.fakes.moving_clock import MovingClock
from tests.fakes.uvicorn_server import serve_app

ALERT = Alert("tenant:acme", Decimal("8.10"), Decimal(10), datetime(2026, 1, 2, tzinfo=UTC))


@dataclass
class Inbox:
    """A webhook that fails as often as it is told, and keeps what it was sent."""

    failures: int = 0
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, it hangs."""
    url: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        self.received.append(await request.json())
        await self.answering.wait()
        return Response(status_code=503 if len(self.received) <= self.failures else 204)


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    inbox, app = Inbox(), FastAPI()
    app.post("/hooks/secret")(inbox.take)
    async with serve_app(app) as url:
        inbox.url = f"{url}/hooks/secret"
        inbox.answering.set()
        yield inbox
        inbox.answering.set()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    opened = Connections()
    yield opened
    await opened.aclose()


async def deliver(url: str, connections: Connections, clock: MovingClock) -> None:
    webhook = AlertWebhook(url, connections, sleep=clock.sleep)
    webhook.take(ALERT)
    await webhook.aclose()


def test_an_alert_stands_in_the_log() -> None:
    with capture_logs() as logs:
        AlertLog().take(ALERT)
    assert logs == [
        {
            "event": "budget_threshold_passed",
            "log_level": "warning",
            "account": "tenant:acme",
            "spent_usd": "8.10",
            "limit_usd": "10",
            "resets_at": "2026-01-02T00:00:00+00:00",
        }
    ]


async def test_a_webhook_that_fails_twice_gets_it_the_third_time(inbox: Inbox, connections: Connections) -> None:
    inbox.failures, clock = 2, MovingClock()
    await deliver(inbox.url, connections, clock)
    assert inbox.received == 3 * [
        {
            "event": "budget_threshold_passed",
            "text": "The budget of tenant:acme is nearly used up: 8.1 of 10 USD are spent; "
            "it resets at 2026-01-02T00:00:00+00:00.",
            "account": "tenant:acme",
            "spent_usd": "8.10",
            "limit_usd": "10",
            "resets_at": "2026-01-02T00:00:00+00:00",
        }
    ]
    assert clock.slept == [1, 5]


async def test_a_webhook_that_always_fails_is_given_up_and_its_address_kept_secret(
    inbox: Inbox, connections: Connections
) -> None:
    inbox.failures, clock = 99, MovingClock()
    with capture_logs() as logs:
        await deliver(inbox.url, connections, clock)
    assert len(inbox.received) == 5
    assert [(log["event"], log["problem"]) for log in logs] == [("alert_not_delivered", "HTTP 503")] * 5
    assert logs[-1]["retry_in_seconds"] is None
    assert "secret" not in str(logs)


async def test_a_webhook_nobody_serves_is_no_failure_of_ours(connections: Connections) -> None:
    with capture_logs() as logs:
        await deliver("http://127.0.0.1:1/hooks/secret", connections, MovingClock())
    assert {log["problem"] for log in logs} == {"LLMConnectionError"}
    assert "secret" not in str(logs)


async def test_taking_an_alert_waits_for_nothing_and_closing_not_for_ever(
    inbox: Inbox, connections: Connections
) -> None:
    inbox.answering.clear()
    loop = asyncio.get_running_loop()
    webhook = AlertWebhook(inbox.url, connections, closing_seconds=0.2)
    started = loop.time()
    webhook.take(ALERT)
    assert loop.time() - started < 0.05
    await webhook.aclose()
    assert 0.15 < loop.time() - started < CLOSING_SECONDS
