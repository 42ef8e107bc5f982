"""The life of a worker process: open the parts before the first job, hand back at the end, keep evidence of garbage.

Celery tells of each moment by a signal. An exception raised in one is only logged, so a configuration that cannot work
ends the process by `SystemExit`, with its one sentence.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import structlog
from celery import signals
from celery.worker.consumer import Consumer

from orchestrator import event_loop
from orchestrator.dispatch import tell_failure
from orchestrator.failed_requests import store as failed_requests
from orchestrator.wiring import WorkerParts, open_worker
from shared.database import patiently
from shared.errors import ConfigurationError, InputError, MessageRejectedError
from shared.settings import load_settings
from shared.telemetry import configure_logging

log = structlog.get_logger()


@cache
def parts() -> WorkerParts:
    """What this process works with, opened at first use.

    Raises:
        ConfigurationError: what is missing or wrong, in one sentence.
    """
    return event_loop.run(open_worker(load_settings()))


# A forked child has no event loop yet, and must not use its parent's connections.
os.register_at_fork(after_in_child=parts.cache_clear)


@signals.worker_init.connect
def open_at_start(**_: Any) -> None:
    """Refuse to start rather than fail at the first job."""
    try:
        configure_logging(load_settings())
        parts()
    except ConfigurationError as error:
        raise SystemExit(f"llmyard: {error}") from error


@signals.setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Celery sets up logging of its own unless somebody listens here."""
    # At its usual level Celery writes every result into the log; answers belong to those who asked.
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)


@signals.worker_ready.connect
def say_ready(**_: Any) -> None:
    """From here on messages are taken."""
    log.info("worker_ready")


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
        event_loop.run(parts().aclose())


class EvidenceConsumer(Consumer):  # type: ignore[misc] # Celery publishes no types
    """Keeps what cannot even be read as a task instead of only logging it; nothing a producer sends ends the worker."""

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's own handler raises what it did not expect of a message, which ends the worker."""
        handle = super().create_task_handler(*arguments, **options)

        def on_task_received(message: Any) -> None:
            try:
                handle(message)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                log.warning("message_unreadable", error=repr(error))
                _keep_unreadable(message, "is not a task call", "send [args, kwargs, embed], as Celery does")
                message.reject_log_error(log, self.connection_errors)

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        _keep_unreadable(message, "is not JSON", "send JSON, as Celery does")
        super().on_decode_error(message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        _keep_unreadable(message, "is not a task call", "send JSON with Celery's send_task")
        super().on_invalid_task(body, message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        _keep_unreadable(message, "names no task", "send it with Celery's send_task")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        _keep_unreadable(message, f"names task {exc}, which is not known", "send it as handle_message")
        super().on_unknown_task(body, message, exc)


def _keep_unreadable(message: Any, problem: str, remedy: str) -> None:
    """Not waited for: this is the thread that reads from the broker."""
    task_id = message.headers.get("id")
    event_loop.current().submit(_reject(task_id and str(task_id), InputError("message", problem, remedy), message.body))


async def _reject(task_id: str | None, error: InputError, evidence: object) -> None:
    await keep_evidence(task_id, error, evidence)
    if task_id:
        await asyncio.to_thread(tell_failure, [task_id], MessageRejectedError(str(error)))


async def keep_evidence(task_id: str | None, error: InputError, evidence: object) -> None:
    """Store a message that could not become a job, as soon as the database takes it."""

    async def keep() -> None:
        async with parts().database.as_system() as connection:
            await failed_requests.keep_rejected(connection, task_id=task_id, error=error, evidence=evidence)

    await patiently(keep)
    log.warning("message_rejected", task_id=task_id, error=str(error))
