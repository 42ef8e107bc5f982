"""The Celery tasks, each a few lines: they bring a delivery to the runner, and its outcome to whoever waits.

All are plain functions, never `async def`: Celery would take the coroutine for the result.
"""

from concurrent.futures import CancelledError
from typing import Any, Final
from uuid import UUID

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject

from orchestrator import event_loop, worker
from orchestrator.celery_app import app
from orchestrator.dispatch import dispatch, tell_failure, tell_parked, tell_success
from orchestrator.failed_requests.replay import release_due
from orchestrator.jobs.deliveries import Delivery, KnownJob, NewMessage
from orchestrator.jobs.sweeps import Waiting
from orchestrator.messages import parse_message
from orchestrator.outcomes import Failed, Outcome, Parked, RetryLater, Succeeded
from orchestrator.reconcile import reconcile
from shared.database import DATABASE_ERRORS
from shared.errors import InputError, JobFailedError, MessageRejectedError, RunCrashedError

log = structlog.get_logger()

# One a second would push the users' tasks out of what Flower remembers.
SWEEP: Final[dict[str, Any]] = {"ignore_result": True, "send_events": False}


@app.task(name="handle_message", bind=True, throws=(MessageRejectedError, JobFailedError))
def handle_message(task: Task, message: dict[str, Any] | None = None) -> dict[str, Any]:
    """Answer a message: the door for producers that speak Celery."""
    try:
        return _run(task, NewMessage(parse_message(message), task.request.id))
    except InputError as error:
        event_loop.run(worker.keep_evidence(task.request.id, error, message))
        raise MessageRejectedError(str(error)) from None


@app.task(name="run_job", bind=True, throws=(JobFailedError,))
def run_job(task: Task, tenant_id: str, job_id: str) -> dict[str, Any]:
    """Run a job that has its row: submitted over HTTP, replayed, handed back, or found undelivered."""
    try:
        return _run(task, KnownJob(tenant_id, UUID(job_id), task.request.id))
    except DATABASE_ERRORS:
        # The job is as it was, and is sent again: telling its poller of a failure would be wrong.
        log.exception("delivery_failed", job_id=job_id)
        raise Ignore from None


@app.task(name="reconcile_jobs", **SWEEP)
def reconcile_jobs() -> None:
    """Give jobs of dead workers, and jobs whose message was lost, to another worker."""
    stuck = event_loop.run(reconcile(worker.parts().database))
    dispatch(stuck.waiting)
    for job in stuck.quarantined:
        tell_failure(job.task_ids, JobFailedError(job.result["error"]["message"]))


@app.task(name="drain_failed_requests", **SWEEP)
def drain_failed_requests() -> None:
    """Send parked jobs back as fast as the providers take them."""
    dispatch(event_loop.run(release_due(worker.parts().database)))


def _run(task: Task, delivery: Delivery) -> dict[str, Any]:
    try:
        outcome = event_loop.run(worker.parts().runner.handle(delivery))
    except RunCrashedError:
        # Not a failure of the job yet: its lease runs out, and it is given to another worker.
        raise Ignore from None
    except CancelledError:
        raise Reject("the worker is stopping", requeue=True) from None
    return _report(task, outcome)


def _report(task: Task, outcome: Outcome) -> dict[str, Any]:
    """Tell the outcome to this task's poller and to every other task that waits for it."""
    match outcome:
        case Succeeded(result, _, waiting_tasks):
            tell_success(_others(task, waiting_tasks), result)
            return result
        case Failed(_, _, waiting_tasks):
            failure = JobFailedError(f"{outcome.error_type}: {outcome.error_message}")
            tell_failure(_others(task, waiting_tasks), failure)
            raise failure
        case Parked(result=dict(result), waiting_tasks=waiting_tasks):
            tell_parked({task.request.id, *waiting_tasks}, result)
        case RetryLater(job=Waiting() as job):
            dispatch([job])
    # The result stays open: whoever ends the job tells this task too.
    raise Ignore


def _others(task: Task, waiting_tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Celery itself stores the result of the task that ends here."""
    return tuple(task_id for task_id in waiting_tasks if task_id != task.request.id)
