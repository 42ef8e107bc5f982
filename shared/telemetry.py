"""Logs: one line an event, named in the past tense, for people or for machines."""

import logging
import sys

import structlog

from shared.errors import ConfigurationError
from shared.settings import Settings

FORMATS = ("console", "json")


def configure_logging(settings: Settings) -> None:
    """Write events to standard error; call once per process, before the first event.

    Raises:
        ConfigurationError: LLMYARD_LOG_FORMAT is not known.
    """
    if settings.llmyard_log_format not in FORMATS:
        raise ConfigurationError(f"LLMYARD_LOG_FORMAT is {settings.llmyard_log_format!r}: set it to console or json.")
    # Libraries speak through the standard module; what they say goes to the same place.
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s"
    )
    as_json = settings.llmyard_log_format == "json"
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *((structlog.processors.dict_tracebacks,) if as_json else ()),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
