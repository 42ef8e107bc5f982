"""Takes messages from the broker for a worker process: as many as it has room for, and whatever they are.

What cannot even be read as a task is kept as evidence instead of only logged; nothing a producer sends ends the worker.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from typing import Any, Final

import structlog
from celery.worker import state as celery_state
from celery.worker.consumer import Consumer

from orchestrator import event_loop
from orchestrator.batches.records import SLICE_LINES
from orchestrator.beat import MAINTENANCE_QUEUE
from orchestrator.celery_app import BULK_QUEUE, JOBS_QUEUE
from orchestrator.dispatch import tell_failure
from orchestrator.failed_requests import store as failed_requests
from orchestrator.greenlet_pool import TaskPool
from orchestrator.jobs.deliveries import NewMessage
from orchestrator.liveness.duty import Duty
from orchestrator.liveness.process_names import build_worker_name
from orchestrator.liveness.pulse import STANDS_SECONDS, Pulse
from orchestrator.liveness.registry import WorkerIdentity
from orchestrator.messages import parse_message
from orchestrator.plain_calls import PlainCalls
from orchestrator.worker import parts
from orchestrator.workload import Workload
from shared.database import patiently
from shared.errors import InputError, MessageRejectedError

log = structlog.get_logger()

FEWEST_AT_ONCE: Final = 16
"""Single jobs taken in one round trip, or a 32nd of the slots: some are left for a worker that is idle."""
SWEEPS_AT_ONCE: Final = 2
BETWEEN_SLICES_SECONDS: Final = 0.02
EVENTS_SECONDS: Final = 0.25
"""After which Flower hears what happened."""
EVENTS_AT_ONCE: Final = 1000
LONGEST_BETWEEN_TRIES_SECONDS: Final = 4
"""To reach a broker that is away, for however long it has been."""


class Appetite:
    """What a worker would take now; see `redis_transport.Appetite`."""

    def __init__(self, workload: Workload, pool: TaskPool, has_turned_within: Callable[[float], bool]) -> None:
        """`has_turned_within` knows of the event loop that would work on what is taken."""
        self._workload = workload
        self._pool = pool
        self._has_turned_within = has_turned_within

    def find_most(self, queues: Sequence[str]) -> Mapping[str, int]:
        """Single jobs first, then sweeps, and a slice where slots would else stay empty."""
        if not self._has_turned_within(STANDS_SECONDS):
            return {}
        most = dict.fromkeys((queue for queue in queues if queue not in (MAINTENANCE_QUEUE, BULK_QUEUE)), self._room())
        if MAINTENANCE_QUEUE in queues:
            most[MAINTENANCE_QUEUE] = SWEEPS_AT_ONCE
        if BULK_QUEUE in queues:
            jobs = self._workload.find_room_in_slices(self._singles(), self._pool.count("run_slice"))
            most[BULK_QUEUE] = ceil(jobs / SLICE_LINES)
        return {queue: count for queue, count in most.items() if count > 0}

    def has_room(self) -> bool:
        return self._has_turned_within(STANDS_SECONDS) and self._room() > 0

    def find_wait_seconds(self) -> float | None:
        """Who has a slice in hand has soon room for the next."""
        return BETWEEN_SLICES_SECONDS if self._pool.count("run_slice") else None

    def _room(self) -> int:
        most: int = max(FEWEST_AT_ONCE, self._pool.num_processes // 32)
        return min(most, self._workload.find_room(self._singles()))

    def _singles(self) -> int:
        return self._pool.count("handle_message") + self._pool.count("run_job")


class EvidenceConsumer(Consumer):  # type: ignore[misc] # Celery publishes no types
    """It also is where a message, or the answer that there is none, is seen first."""

    duty: Duty | None = None
    _are_events_due = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not isinstance(self.pool, TaskPool):
            raise SystemExit("llmyard: a worker has its own pool: start it without --pool.")
        queues = frozenset(self.app.amqp.queues.consume_from)
        takes_jobs = JOBS_QUEUE in queues
        self.appetite = Appetite(parts().workload, self.pool, lambda seconds: self.pulse.has_turned_within(seconds))
        self.identity = WorkerIdentity(build_worker_name(), self.hostname, self.pool.num_processes if takes_jobs else 0)
        # It asks for slices only when it has room for one.
        watched = {JOBS_QUEUE} if takes_jobs else queues
        work = queues - {MAINTENANCE_QUEUE}
        self.pulse = Pulse(watched, is_full=lambda: bool(work) and not self.appetite.find_most(tuple(work)))

    def on_send_event_buffered(self) -> None:
        """Celery sends what there is at each turn of its loop; nobody who watches needs to know so soon."""
        if self.hub is not None and not self._are_events_due:
            self._are_events_due = True
            self.hub.call_later(EVENTS_SECONDS, self._send_events)

    def _send_events(self) -> None:
        self._are_events_due = False
        self._flush_events()

    def stop(self) -> None:
        """However the end began: by a signal, by a control command, or by a fault."""
        if self.duty is not None:
            self.duty.stop.begin()
        super().stop()

    def ensure_connected(self, conn: Any) -> Any:
        """Celery's own waits two seconds longer after each try, up to 30: as long as a worker may take to be back."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=LONGEST_BETWEEN_TRIES_SECONDS)
        return super().ensure_connected(conn)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's own handler raises what it did not expect of a message, which ends the worker."""
        handle = super().create_task_handler(*arguments, **options)
        if self.event_dispatcher is not None:
            self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE
        if self.connection.transport.driver_type == "redis":
            self.task_consumer.channel.on_poll = self.pulse.note_poll
            self.task_consumer.channel.appetite = self.appetite
            self.task_consumer.channel.works_on_what_it_has = self._works_on_what_it_has

        calls = PlainCalls(self.pool, self.app.tasks, self.event_dispatcher, self.hostname, self.connection_errors)

        def on_task_received(message: Any) -> None:
            if message.delivery_info.get("routing_key") != MAINTENANCE_QUEUE:
                self.pulse.note_activity()
            try:
                if not calls.take(message):
                    handle(message)
                    _take_in_revoked(message)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                log.warning("message_unreadable", error=repr(error))
                _keep_unreadable(message, "is not a task call", "send [args, kwargs, embed], as Celery does")
                message.reject_log_error(log, self.connection_errors)

        return on_task_received

    def _works_on_what_it_has(self) -> bool:
        """A loop that has stood still for a lease has lost its jobs; let it lose its messages too."""
        return self.pulse.has_turned_within(parts().settings.llmyard_lease_seconds)

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


def _take_in_revoked(message: Any) -> None:
    """Celery drops a message whose task was revoked before it came; the ledger shall have the job, as cancelled."""
    headers = message.headers or {}
    task_id = headers.get("id")
    if task_id is None or task_id not in celery_state.revoked:
        return
    if headers.get("task") == "run_job":
        event_loop.current().submit(parts().canceller.cancel_tasks([task_id]))
    if headers.get("task") != "handle_message":
        return
    try:
        (arguments, options, _) = json.loads(message.body)
    except (ValueError, RecursionError):
        return  # Celery has kept it as garbage
    content = arguments[0] if arguments else options.get("message")
    event_loop.current().submit(_cancel_message(task_id, content))


async def _cancel_message(task_id: str, content: Any) -> None:
    try:
        await parts().canceller.cancel_message(NewMessage(parse_message(content), task_id))
    except InputError as error:
        await keep_evidence(task_id, error, content)


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
