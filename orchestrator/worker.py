"""The life of a worker process: open the parts before the first job, hand back at the end, keep evidence of garbage.

Celery tells of each moment by a signal. An exception raised in one is only logged, so a configuration that cannot work
ends the process by `SystemExit`, with its one sentence.
"""

import threading
from concurrent.futures import Future
from functools import cache
from typing import Any

import structlog
from celery import signals
from celery.worker.consumer import Consumer

from orchestrator import event_loop
from orchestrator.failed_requests import store as failed_requests
from orchestrator.wiring import WorkerParts, open_worker
from shared.errors import ConfigurationError, InputError
from shared.settings import load_settings
from shared.telemetry import configure_logging

log = structlog.get_logger()


@cache
def parts() -> WorkerParts:
    """What this process works with, opened at first use.

    Raises:
        ConfigurationError: what is missing or wrong, in one sentence.
    """
    opened = event_loop.run(open_worker(load_settings()))
    _background.append(event_loop.current().submit(opened.leases.keep()))
    return opened


_background: list[Future[None]] = []


@signals.worker_init.connect
def open_at_start(**_: Any) -> None:
    """Refuse to start rather than fail at the first job."""
    try:
        configure_logging(load_settings())
        parts()
    except ConfigurationError as error:
        raise SystemExit(f"llmyard: {error}") from error


@signals.setup_logging.connect
def keep_celery_quiet(**_: Any) -> None:
    """Celery would send our own events through its handlers a second time."""


@signals.worker_shutting_down.connect
def hand_back_after_grace(**_: Any) -> None:
    """The threads pool waits for its jobs without end; this is the end."""
    grace_seconds = parts().settings.llmyard_shutdown_grace_seconds
    timer = threading.Timer(grace_seconds, event_loop.current().call_soon, (_hand_back,))
    timer.daemon = True
    timer.start()


def _hand_back() -> None:
    count = parts().runner.hand_back_all()
    log.info("jobs_handed_back", count=count)


@signals.worker_shutdown.connect
def close_at_end(**_: Any) -> None:
    """Nothing is in hand any more: stop the heartbeat, close the connections."""
    if parts.cache_info().currsize:
        for future in _background:
            future.cancel()
        event_loop.run(parts().aclose())


class EvidenceConsumer(Consumer):  # type: ignore[misc]
    """Keeps what cannot even be read as a task, instead of only logging it."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        _keep_unreadable(message.headers.get("id"), message.body, "is not JSON", "send JSON as Celery does")
        super().on_decode_error(message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        _keep_unreadable(message.headers.get("id"), body, "is no task", "send it with Celery's send_task")
        super().on_invalid_task(body, message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        _keep_unreadable(None, body, "is in no format of Celery's", "send it with Celery's send_task")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        _keep_unreadable(message.headers.get("id"), body, f"names task {exc}", "send it as handle_message")
        super().on_unknown_task(body, message, exc)


def _keep_unreadable(task_id: object, body: object, problem: str, remedy: str) -> None:
    error = InputError("message", problem, remedy)
    event_loop.run(keep_evidence(None if task_id is None else str(task_id), error, body))


async def keep_evidence(task_id: str | None, error: InputError, evidence: object) -> None:
    """Store a message that could not become a job."""
    async with parts().database.as_system() as connection:
        await failed_requests.keep_rejected(connection, task_id=task_id, error=error, evidence=evidence)
    log.warning("message_rejected", task_id=task_id, error=str(error))
