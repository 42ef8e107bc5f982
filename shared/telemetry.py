"""Logs: one line an event, named in the past tense, for people or for machines; without secrets and without locals."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from shared.errors import ConfigurationError
from shared.redaction import redact_fields, redact_text
from shared.settings import Settings

FORMATS = ("console", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure_logging(settings: Settings) -> None:
    """Write events to standard error; call once per process of ours, before the first event.

    Raises:
        ConfigurationError: LLMYARD_LOG_FORMAT or LLMYARD_LOG_LEVEL is not known.
    """
    _configure_events(settings)
    # Libraries speak through the standard module; what they say goes to the same place.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_RedactingFormatter("%(asctime)s [%(levelname)s] %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=_find_level(settings))


def configure_logging_of_guest(settings: Settings) -> None:
    """For a program that is not ours: as above, where it has not decided otherwise; what its libraries say is its own.

    Only warnings and errors, unless LLMYARD_LOG_LEVEL is set: a script's answers are not to drown.

    Raises:
        ConfigurationError: likewise.
    """
    if structlog.is_configured():
        return
    is_level_set = "llmyard_log_level" in settings.model_fields_set
    _configure_events(settings if is_level_set else settings.model_copy(update={"llmyard_log_level": "WARNING"}))


def _configure_events(settings: Settings) -> None:
    _refuse_unknown(settings)
    level = _find_level(settings)
    as_json = settings.llmyard_log_format == "json"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact_event,
            *(_build_machine_renderer() if as_json else _build_people_renderer()),
            _redact_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_write_to_standard_error,
    )


def _write_to_standard_error(*_: object) -> structlog.WriteLogger:
    """Where it is at that moment: a guest may have it led elsewhere for a while."""
    return structlog.WriteLogger(sys.stderr)


def _find_level(settings: Settings) -> int:
    return logging.getLevelNamesMapping()[settings.llmyard_log_level.upper()]


def _refuse_unknown(settings: Settings) -> None:
    log_format, level = settings.llmyard_log_format, settings.llmyard_log_level
    if log_format not in FORMATS:
        raise ConfigurationError(f"LLMYARD_LOG_FORMAT is {log_format!r}: set it to console or json.")
    if level.upper() not in LEVELS:
        raise ConfigurationError(f"LLMYARD_LOG_LEVEL is {level!r}: set it to one of {', '.join(LEVELS)}.")


def _build_machine_renderer() -> tuple[structlog.typing.Processor, ...]:
    # Locals would show prompts, answers and keys: structlog shows them unless told otherwise, here and below.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()


def _build_people_renderer() -> tuple[structlog.typing.Processor, ...]:
    return (structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),)


def _redact_event(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return redact_fields(event)


def _redact_line(_: Any, __: str, line: Any) -> str:
    """Once over the whole line, as text: a secret may stand in any value, and in an exception's words."""
    return redact_text(line)


class _RedactingFormatter(logging.Formatter):
    """What libraries say, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact_text(super().format(record))
