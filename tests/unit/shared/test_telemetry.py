"""Logs: one line an event, for people or for machines."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.errors import ConfigurationError
from shared.settings import Settings
from shared.telemetry import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    yield
    root.handlers[:] = before
    structlog.reset_defaults()


def log(log_format: str) -> None:
    configure_logging(Settings(llmyard_log_format=log_format))
    structlog.get_logger().info("job_parked", job_id="j-1")


def test_for_machines_an_event_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    log("json")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["job_id"], entry["level"]) == ("job_parked", "j-1", "info")
    assert entry["timestamp"].endswith("Z")


def test_for_people_an_event_is_one_line_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    log("console")
    (line,) = capsys.readouterr().err.splitlines()
    assert "job_parked" in line
    assert "job_id=j-1" in line
    assert "\x1b" not in line


def test_another_format_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"^LLMYARD_LOG_FORMAT is 'xml': set it to console or json\.$"):
        log("xml")
