"""Logs: one line an event, for people or for machines."""

import json
import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from shared.errors import ConfigurationError
from shared.settings import Settings
from shared.telemetry import configure_logging, configure_logging_of_guest


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, before, level = logging.getLogger(), list(logging.getLogger().handlers), logging.getLogger().level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def configure(log_format: str = "json", level: str = "INFO") -> None:
    logging.getLogger().handlers[:] = []
    configure_logging(Settings(llmyard_log_format=log_format, llmyard_log_level=level))


def log(log_format: str) -> None:
    configure(log_format)
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


def test_another_level_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"^LLMYARD_LOG_LEVEL is 'loud': set it to one of DEBUG, INFO, "):
        configure(level="loud")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level="warning")
    structlog.get_logger().info("job_parked")
    logging.getLogger("library").info("hello")
    structlog.get_logger().warning("lease_lost")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "lease_lost"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_neither_locals_nor_secrets(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format)
    fail_with_secrets(structlog.get_logger().exception)
    written = capsys.readouterr().err
    assert "ZeroDivisionError" in written
    assert "fail_with_secrets" in written
    assert "what the user asked" not in written
    assert "abcdefgh" not in written
    assert "hunter2" not in written


def test_libraries_tell_no_secrets_either(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logging.getLogger("aiohttp").warning("cannot reach %s", "redis://:hunter2@host/0")
    fail_with_secrets(logging.getLogger("celery").exception)
    written = capsys.readouterr().err
    assert "cannot reach redis://:[redacted]@host/0" in written
    assert "ZeroDivisionError" in written
    assert "abcdefgh" not in written
    assert "hunter2" not in written


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_fields_and_texts_lose_their_secrets(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format)
    structlog.get_logger().info(
        "x", api_key="hunter2", url="redis://:hunter2@host", headers={"Authorization": "hunter2"}
    )
    written = capsys.readouterr().err
    assert "hunter2" not in written
    assert "redis://:[redacted]@host" in written


def test_a_guest_is_told_of_troubles_only_unless_it_wants_more(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging_of_guest(Settings(llmyard_log_format="json"))
    structlog.get_logger().info("request_answered")
    structlog.get_logger().warning("attempt_failed", api_key="hunter2")
    structlog.reset_defaults()
    configure_logging_of_guest(Settings(llmyard_log_format="json", llmyard_log_level="info"))
    structlog.get_logger().info("request_answered")
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["attempt_failed", "request_answered"]
    assert "hunter2" not in err


def test_a_guest_that_has_decided_where_events_go_keeps_it() -> None:
    seen: list[str] = []

    def keep(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        seen.append(event["event"])
        return ""

    structlog.configure(processors=[keep])
    configure_logging_of_guest(Settings())
    structlog.get_logger().info("request_answered")
    assert seen == ["request_answered"]


def test_what_libraries_of_a_guest_say_is_its_own() -> None:
    before = list(logging.getLogger().handlers)
    configure_logging_of_guest(Settings())
    assert logging.getLogger().handlers == before


def fail_with_secrets(tell: Callable[[str], None]) -> None:
    prompt = "what the user " + "asked"
    api_key = "sk-" + "abcdefgh12345"
    try:
        raise ZeroDivisionError(f"{len(prompt)} {api_key} postgresql://me:{'hunter' + '2'}@db/x")
    except ZeroDivisionError:
        tell("run_crashed")
