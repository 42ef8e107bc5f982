"""How our web applications are served."""

import asyncio
import logging
import signal
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from orchestrator.cli.serve import TICK_SECONDS, QuietServer, build_configuration
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
    async with asyncio.timeout(TICK_SECONDS / 2):
        await serving


async def test_its_answers_carry_the_time_of_day_all_the_same() -> None:
    server = QuietServer(build_configuration(FastAPI(), "127.0.0.1", 8002))
    serving = asyncio.create_task(server.main_loop())
    await asyncio.sleep(0.05)
    before = server.server_state.default_headers
    await asyncio.sleep(1.2 * TICK_SECONDS)
    assert server.server_state.default_headers != before
    server.handle_exit(signal.SIGTERM, None)
    await serving
