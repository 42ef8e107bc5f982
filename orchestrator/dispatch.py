"""Puts jobs on the broker's queue, and results where Celery's pollers look for them. Always after the commit.

The row is the job; the message only wakes a worker. A broker that is away costs time, nothing else: the sweep for
undelivered jobs sends the message again. So nothing here raises over a broker, and nothing waits long for one.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import structlog
from amqp.exceptions import AMQPError, ChannelError, MessageNacked
from celery import states
from celery.exceptions import BackendStoreError, TaskRevokedError
from kombu import pools
from kombu.exceptions import LimitExceeded, OperationalError
from kombu.messaging import Producer
from redis.exceptions import RedisError

from orchestrator.celery_app import BULK_QUEUE, JOBS_QUEUE, ONE_MORE_TRY, app, build_sending_options
from orchestrator.jobs.sweeps import Waiting
from orchestrator.outcomes import EndedJob
from shared.errors import JobFailedError

log = structlog.get_logger()

PARKED: Final = "PARKED"
"""Celery state of a task whose job waits; not a final one, so that `get()` goes on waiting."""

CANCEL_COMMAND: Final = "cancel_runs"
"""The control command by which workers hear of cancelled jobs; its one argument is `job_ids`."""

SEND_SECONDS: Final = 2.0
"""Longest for one step of talking to a broker: to connect, to send, to be confirmed."""

BROKER_ERRORS: Final = (OperationalError, LimitExceeded, AMQPError, MessageNacked, RedisError, OSError)
"""What either broker can answer with: away, silent, full, blocked, or with a queue of another kind."""

RESULT_ERRORS: Final = (BackendStoreError, RedisError, OSError)
"""What the result backend can answer with, after Celery's own retries."""

_NO_SUCH_QUEUE: Final = "404"

_BOUNDED: Final[dict[str, Any]] = {
    "retry": True,
    "retry_policy": ONE_MORE_TRY,
    "timeout": SEND_SECONDS,
    "confirm_timeout": SEND_SECONDS,
}

# Celery subscribes to the result of what it sends, and nobody here would ever read it. The worker goes by the header.
_STORE_BUT_DO_NOT_AWAIT: Final[dict[str, Any]] = {"ignore_result": True, "headers": {"ignore_result": False}}


def dispatch(jobs: Sequence[Waiting]) -> None:
    """Wake a worker for each of the jobs, under the task id its poller knows."""
    unsent = deque(jobs)
    try:
        try:
            _send(unsent)
        except ChannelError:
            # As for a queue that was deleted since this connection declared it: a new one declares it anew.
            _send(unsent)
    except BROKER_ERRORS as error:
        log.warning("dispatch_failed", jobs=len(unsent), error=_describe(error))


def dispatch_slices(slices: Sequence[tuple[str, Sequence[UUID]]]) -> None:
    """Wake a worker for each slice, a tenant's jobs that run side by side; who waits for them reads the database."""
    unsent = deque(slices)
    try:
        with _sender(SEND_SECONDS) as producer:
            while unsent:
                tenant_id, job_ids = unsent[0]
                arguments = (tenant_id, [str(job_id) for job_id in job_ids])
                options = {**_BOUNDED, "ignore_result": True}
                app.send_task("run_slice", arguments, queue=BULK_QUEUE, producer=producer, **options)
                unsent.popleft()
    except BROKER_ERRORS as error:
        log.warning("dispatch_failed", jobs=sum(len(job_ids) for _, job_ids in unsent), error=_describe(error))


def _send(unsent: deque[Waiting]) -> None:
    """Takes out what the broker has."""
    options = {**_BOUNDED, **_STORE_BUT_DO_NOT_AWAIT}
    with _sender(SEND_SECONDS) as producer:
        while unsent:
            job = unsent[0]
            arguments = (job.tenant_id, str(job.job_id))
            app.send_task("run_job", arguments, task_id=job.task_id, producer=producer, mandatory=True, **options)
            unsent.popleft()


def broadcast_cancel(job_ids: Sequence[UUID]) -> None:
    """Tell every worker to end its runs of these jobs. Who does not hear it finds out at its next heartbeat."""
    # Celery's own broadcast waits for ever where the broker has gone silent.
    exchange = app.control.mailbox.exchange
    command = {"method": CANCEL_COMMAND, "arguments": {"job_ids": [str(job_id) for job_id in job_ids]}}
    try:
        with _sender(SEND_SECONDS) as producer:
            producer.publish(command, exchange=exchange.name, declare=[exchange], serializer="json", **_BOUNDED)
    except BROKER_ERRORS as error:
        log.warning("cancel_not_told", jobs=len(job_ids), error=_describe(error))


def read_backlog(timeout_seconds: float = SEND_SECONDS, queue: str = JOBS_QUEUE) -> int | None:
    """Messages that no worker has taken yet from a queue; None where the broker cannot be asked."""
    try:
        with _sender(timeout_seconds) as producer:
            return _count_messages(producer.channel, queue)
    except BROKER_ERRORS:
        return None


def _count_messages(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except ChannelError as error:
        # Redis keeps no list that is empty, and RabbitMQ no queue that nobody has declared.
        if str(error.reply_code) == _NO_SUCH_QUEUE:
            return 0
        raise


@contextmanager
def _sender(timeout_seconds: float) -> Iterator[Producer]:
    """A producer of a pool whose connections never wait long. kombu puts none back that failed."""
    options = build_sending_options(timeout_seconds)
    connection = app.connection_for_write(connect_timeout=timeout_seconds, transport_options=options)
    with pools.producers[connection].acquire(block=True, timeout=timeout_seconds) as producer:
        yield producer


def _describe(error: BaseException) -> str:
    """Celery and kombu wrap what the broker said, and some of it says nothing but its name."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"


def tell(task_ids: Iterable[str], state: str, result: Any) -> None:
    """Set the result of tasks that wait for a job another task has handled."""
    untold = list(task_ids)
    try:
        while untold:
            # News that is not final may come late: a job that was parked has perhaps been cancelled meanwhile.
            if state in states.READY_STATES or app.backend.get_state(untold[0]) not in states.READY_STATES:
                app.backend.store_result(untold[0], result, state)
            untold.pop(0)
    except RESULT_ERRORS as error:
        # Each is tried for seconds already: a backend that is away is away for the others too.
        log.warning("result_not_told", task_ids=untold, state=state, error=_describe(error))


def tell_success(task_ids: Iterable[str], result: dict[str, Any]) -> None:
    tell(task_ids, states.SUCCESS, result)


def tell_failure(task_ids: Iterable[str], error: Exception) -> None:
    tell(task_ids, states.FAILURE, error)


def tell_ended(jobs: Iterable[EndedJob]) -> None:
    """Let the tasks that wait for these jobs fail."""
    for job in jobs:
        tell_failure(job.task_ids, JobFailedError(job.error))


def tell_parked(task_ids: Iterable[str], result: dict[str, Any]) -> None:
    tell(task_ids, PARKED, result)


def tell_revoked(task_ids: Iterable[str], reason: str) -> None:
    """A poller's `get()` raises `TaskRevokedError` with the reason, as after a revoke of Celery's own."""
    tell(task_ids, states.REVOKED, TaskRevokedError(reason))


def is_broker_reachable(timeout_seconds: float) -> bool:
    """Over a connection of its own, so that one which is still open proves nothing."""
    options = build_sending_options(timeout_seconds)
    try:
        with app.connection_for_write(connect_timeout=timeout_seconds, transport_options=options) as connection:
            connection.ensure_connection(**ONE_MORE_TRY, timeout=timeout_seconds)
    except BROKER_ERRORS:
        return False
    return True
