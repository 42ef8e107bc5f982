"""Puts jobs on the broker's queue, and results where Celery's pollers look for them. Always after the commit.

The row is the job; the message only wakes a worker. A broker that is away costs time, nothing else: the sweep for
undelivered jobs sends the message again.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
from celery import states
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from orchestrator.celery_app import app
from orchestrator.jobs.sweeps import Waiting

log = structlog.get_logger()

PARKED: Final = "PARKED"
"""Celery state of a task whose job waits; not a final one, so that `get()` goes on waiting."""

# Celery subscribes to the result of what it sends, and nobody here would ever read it. The worker goes by the header.
_STORE_BUT_DO_NOT_AWAIT: Final[dict[str, Any]] = {"ignore_result": True, "headers": {"ignore_result": False}}


def dispatch(jobs: Sequence[Waiting]) -> None:
    """Wake a worker for each of the jobs, under the task id its poller knows."""
    try:
        with app.producer_or_acquire() as producer:
            for job in jobs:
                arguments = (job.tenant_id, str(job.job_id))
                app.send_task("run_job", arguments, task_id=job.task_id, producer=producer, **_STORE_BUT_DO_NOT_AWAIT)
    except OperationalError as error:
        log.warning("dispatch_failed", jobs=len(jobs), error=str(error))


def tell(task_ids: Iterable[str], state: str, result: Any) -> None:
    """Set the result of tasks that wait for a job another task has handled."""
    for task_id in task_ids:
        try:
            app.backend.store_result(task_id, result, state)
        except RedisError as error:
            log.warning("result_not_told", task_id=task_id, error=str(error))


def tell_success(task_ids: Iterable[str], result: dict[str, Any]) -> None:
    tell(task_ids, states.SUCCESS, result)


def tell_failure(task_ids: Iterable[str], error: Exception) -> None:
    tell(task_ids, states.FAILURE, error)


def tell_parked(task_ids: Iterable[str], result: dict[str, Any]) -> None:
    tell(task_ids, PARKED, result)


def is_broker_reachable(timeout_seconds: float) -> bool:
    """One try, without the retries a dispatch makes."""
    try:
        with app.connection_for_write(connect_timeout=timeout_seconds) as connection:
            connection.ensure_connection(max_retries=1, timeout=timeout_seconds)
    except OperationalError:
        return False
    return True
