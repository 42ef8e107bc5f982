"""How our web applications are served."""

import asyncio
import logging
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import pytest
from fastapi import FastAPI

from orchestrator.cli.serve import QuietServer, build_configuration
from orchestrator.stack.ports import find_any_port
from shared.settings import Settings
from shared.telemetry import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Servers that other tests ran in this process have left handlers of their own."""
    root, server = logging.getLogger(), logging.getLogger("uvicorn")
    before = [(each, list(each.handlers), each.level, each.propagate) for each in (root, server)]
    server.handlers[:], server.propagate = [], True
    yield
    for each, handlers, level, propagates in before:
        each.handlers[:], each.propagate = handlers, propagates
        each.setLevel(level)


def test_what_the_server_says_of_itself_loses_its_secrets_too(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers[:] = []
    configure_logging(Settings())
    build_configuration(FastAPI(), "127.0.0.1", 8002)
    logging.getLogger("uvicorn.error").error("failed at redis://:hunter2@host/0")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("failed at redis://:[redacted]@host/0") == 1
    assert "hunter2" not in err


async def test_a_server_that_sleeps_ends_at_once_when_its_end_is_wanted() -> None:
    server = QuietServer(build_configuration(FastAPI(), "127.0.0.1", 8002))
    serving = asyncio.create_task(server.main_loop())
    await asyncio.sleep(0.05)
    assert not serving.done()
    server.handle_exit(signal.SIGTERM, None)
    async with asyncio.timeout(0.5):
        await serving


async def test_its_answers_carry_the_time_of_day_all_the_same() -> None:
    port = find_any_port()
    config = build_configuration(FastAPI(), "127.0.0.1", port)
    config.load()
    server = QuietServer(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        before = parsedate_to_datetime((await client.get("/")).headers["date"])
        await asyncio.sleep(1.1)
        after = parsedate_to_datetime((await client.get("/")).headers["date"])
    await server.shutdown()
    assert timedelta(seconds=1) <= after - before <= timedelta(seconds=3)
    assert abs(datetime.now(UTC) - after) < timedelta(seconds=5)
