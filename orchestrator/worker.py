"""The life of a worker process: open the parts before the first job, hand back at the end.

Celery tells of each moment by a signal. An exception raised in one is only logged, so a configuration that cannot work
ends the process by `SystemExit`, with its one sentence.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import cache
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from celery import signals
from celery.worker import control
from celery.worker import state as celery_state

from llm_pool.status.metrics_server import MetricsServer
from orchestrator import event_loop
from orchestrator.dispatch import CANCEL_COMMAND, read_backlog
from orchestrator.liveness.duty import Cadence, Duty
from orchestrator.liveness.pulse import Pulse
from orchestrator.liveness.registry import WorkerIdentity
from orchestrator.liveness.stopping import OrderlyStop, StopActions
from orchestrator.wiring import WorkerParts, open_worker
from shared.errors import ConfigurationError
from shared.settings import load_settings
from shared.telemetry import configure_logging

log = structlog.get_logger()

YOUNG_OBJECTS: Final = 20_000
"""So many are made by some tens of jobs; Python's own 700 by one."""
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class WatchedConsumer(Protocol):
    """What takes the messages, as far as its health goes."""

    identity: WorkerIdentity
    pulse: Pulse
    duty: Duty | None


@cache
def parts() -> WorkerParts:
    """What this process works with, opened at first use.

    Raises:
        ConfigurationError: what is missing or wrong, in one sentence.
    """
    return event_loop.run(open_worker(load_settings()))


@cache
def metrics_server() -> MetricsServer | None:
    """Of the first process of a worker, where a port is set for it.

    Raises:
        ConfigurationError: the port cannot be listened on.
    """
    settings, metrics = parts().settings, parts().metrics
    if metrics is None or settings.llmyard_metrics_port is None:
        return None
    return MetricsServer(metrics, settings.llmyard_metrics_host, settings.llmyard_metrics_port)


# A forked child has no event loop yet, and must not use its parent's connections.
os.register_at_fork(after_in_child=parts.cache_clear)


@signals.worker_init.connect
def open_at_start(**_: Any) -> None:
    """Refuse to start rather than fail at the first job."""
    try:
        configure_logging(load_settings())
        parts()
        metrics_server()
    except ConfigurationError as error:
        raise SystemExit(f"llmyard: {error}") from error


@signals.setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Celery sets up logging of its own unless somebody listens here."""
    # At its usual level Celery writes every result into the log; answers belong to those who asked.
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    # A line for each message tells nothing that the ledger does not, and costs a tenth of its handling.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


@signals.worker_ready.connect
def begin_duty(sender: WatchedConsumer, **_: Any) -> None:
    """From here on messages are taken."""
    # What was loaded stays: to look through it again and again would cost a twelfth of a busy worker's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    duty = sender.duty = event_loop.run(open_duty(sender))
    for number in STOP_SIGNALS:
        # Celery's own would wait for the jobs without end, and at a second signal fail at what threads cannot do.
        signal.signal(number, lambda *_: ask_to_stop(duty.stop))
    if (server := metrics_server()) is not None:
        server.show_ready(duty.read_checks)
    log.info("worker_ready")


def ask_to_stop(stop: OrderlyStop) -> None:
    """In a signal handler: nothing that takes a lock."""
    stop_taking()
    stop.ask()


def stop_taking() -> None:
    """Celery looks at it at each turn of its loop."""
    celery_state.should_stop = os.EX_OK


async def open_duty(consumer: WatchedConsumer) -> Duty:
    settings = parts().settings

    def drain() -> None:
        stop_taking()
        duty.beat_now()

    actions = StopActions(
        drain=drain,
        hand_back=parts().runner.hand_back_all,
        abandon=event_loop.current().abandon,
        end=lambda: become_anew() if stop.begins_anew else os._exit(os.EX_SOFTWARE),
    )
    stop = OrderlyStop(asyncio.get_running_loop(), actions, grace_seconds=settings.llmyard_shutdown_grace_seconds)
    cadence = Cadence(settings.llmyard_lease_seconds, settings.llmyard_worker_silent_seconds)
    duty = Duty(parts().database, consumer.identity, consumer.pulse, stop, cadence, read_backlog)
    return duty


def become_anew() -> None:
    """The same command line in the same process: whoever started it, or waits for it, notices nothing."""
    log.warning("worker_begins_anew")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (itself, no shell)


@signals.worker_shutdown.connect
def close_at_end(sender: Any, **_: Any) -> None:
    """Nothing is in hand any more: stop the heartbeat, close the connections."""
    if metrics_server.cache_info().currsize and (server := metrics_server()) is not None:
        server.close()
    duty: Duty | None = getattr(sender.consumer, "duty", None)
    try:
        event_loop.run(close(duty))
    except CancelledError:
        log.warning("close_abandoned")
    if duty is not None and duty.stop.begins_anew:
        become_anew()
    prove_planned_end()
    # To look through all objects once more costs a third of a second of CPU, and they go with the process.
    gc.freeze()


def prove_planned_end() -> None:
    """Tell whoever keeps this worker alive; a status of 0 may as well be that of a job that ended its process."""
    fd = parts().settings.llmyard_planned_end_fd if parts.cache_info().currsize else None
    if fd is not None:
        with suppress(OSError):  # nobody reads it any more
            os.write(fd, b".")


async def close(duty: Duty | None) -> None:
    if duty is not None:
        await duty.aclose()
    if parts.cache_info().currsize:
        await parts().aclose()


@control.control_command(name=CANCEL_COMMAND, args=[("job_ids", list)])
def cancel_runs(_state: Any, job_ids: list[str]) -> dict[str, str]:
    """Jobs were cancelled: whoever runs one closes its socket to the provider."""
    ids = [UUID(job_id) for job_id in job_ids]
    event_loop.current().call_soon(lambda: parts().runner.interrupt(ids))
    return dict(control.ok("told"))


@control.control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke_jobs(state: Any, task_id: str | list[str], **_: Any) -> dict[str, str]:
    """Celery's own stops what has not begun; the ledger ends the job, which stops a run wherever it is."""
    task_ids = [task_id] if isinstance(task_id, str) else list(task_id)
    event_loop.current().submit(parts().canceller.cancel_tasks(task_ids))
    # Without `terminate`, which threads cannot do and which is no longer needed.
    return dict(control.revoke(state, task_ids))
