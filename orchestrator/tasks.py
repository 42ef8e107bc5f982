"""The Celery tasks, each a few lines: they bring a delivery to the runner, and its outcome to whoever waits.

All are plain functions, never `async def`: Celery would take the coroutine for the result.
"""

from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject

from orchestrator import consumer, event_loop, worker
from orchestrator.batches.feeding import feed
from orchestrator.celery_app import BULK_QUEUE, app
from orchestrator.dispatch import (
    dispatch,
    dispatch_slices,
    read_backlog,
    tell_ended,
    tell_failure,
    tell_parked,
    tell_revoked,
    tell_success,
)
from orchestrator.jobs.deliveries import Delivery, KnownJob, NewMessage
from orchestrator.jobs.sweeps import Waiting
from orchestrator.messages import parse_message
from orchestrator.outcomes import Cancelled, Failed, Outcome, Parked, RetryLater, Succeeded, describe_error
from orchestrator.reconcile import reconcile
from shared.database import DATABASE_ERRORS
from shared.errors import InputError, JobFailedError, MessageRejectedError, RunCrashedError

log = structlog.get_logger()

AnswerT = TypeVar("AnswerT")

# An event a second would push the users' tasks out of what Flower remembers.
SWEEP: Final[dict[str, Any]] = {"ignore_result": True, "send_events": False}


@app.task(name="handle_message", bind=True, throws=(MessageRejectedError, JobFailedError))
def handle_message(task: Task, message: dict[str, Any] | None = None) -> dict[str, Any]:
    """Answer a message: the door for producers that speak Celery."""
    try:
        return _run(task, NewMessage(parse_message(message), task.request.id))
    except InputError as error:
        event_loop.run(consumer.keep_evidence(task.request.id, error, message))
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


@app.task(name="run_slice", ignore_result=True)
def run_slice(tenant_id: str, job_ids: list[str]) -> None:
    """Run many jobs side by side, each with its own row: a batch's. Whoever waits for that reads the database."""
    outcomes = _run_to_end(worker.parts().runner.handle_slice(tenant_id, [UUID(job_id) for job_id in job_ids]))
    handed_back = [outcome.job.job_id for outcome in outcomes if isinstance(outcome, RetryLater) and outcome.job]
    if handed_back:
        event_loop.aside(dispatch_slices, [(tenant_id, handed_back)])
    for outcome in outcomes:
        _tell(outcome)


@app.task(name="sweep", **SWEEP)
def sweep() -> None:
    """Look after what no message drives: parked jobs, batches, and what got stuck."""
    event_loop.current().call_soon(worker.parts().drainer.go_on)
    _reconcile()
    _feed_batches()


def _feed_batches() -> None:
    """Send open batches to the workers, a bounded number of slices at a time."""
    backlog = event_loop.aside(read_backlog, queue=BULK_QUEUE)
    if slices := event_loop.run(feed(worker.parts().database, backlog)):
        event_loop.aside(dispatch_slices, [(each.tenant_id, each.job_ids) for each in slices])


def _reconcile() -> None:
    """Give jobs of dead workers, and jobs whose message was lost, to another worker."""
    lease_seconds, backlog = worker.parts().settings.llmyard_lease_seconds, event_loop.aside(read_backlog)
    stuck = event_loop.run(reconcile(worker.parts().database, lease_seconds=lease_seconds, backlog=backlog))
    if stuck.waiting or stuck.quarantined:
        event_loop.aside(dispatch, stuck.waiting)
        event_loop.aside(tell_ended, stuck.quarantined)


def _run(task: Task, delivery: Delivery) -> dict[str, Any]:
    try:
        outcome = _run_to_end(worker.parts().runner.handle(delivery))
    except RunCrashedError:
        # Not a failure of the job yet: its lease runs out, and it is given to another worker.
        raise Ignore from None
    return _report(task, outcome)


def _run_to_end(handling: Coroutine[Any, Any, AnswerT]) -> AnswerT:
    try:
        return event_loop.run(handling)
    except CancelledError:
        raise Reject("the worker is stopping", requeue=True) from None


def _report(task: Task, outcome: Outcome) -> dict[str, Any]:
    """Tell the outcome to every task that waits for it; Celery itself tells the result of the one that ends here."""
    match _tell(outcome, own_task_id=task.request.id):
        case Succeeded(result):
            return result
        case Failed(result):
            raise JobFailedError(describe_error(result))
        case RetryLater(job=Waiting() as job):
            event_loop.aside(dispatch, [job])
    # The result stays open: whoever ends the job tells this task too.
    raise Ignore


def _tell(outcome: Outcome, own_task_id: str | None = None) -> Outcome:
    """Tell further tasks of the outcome; this one's own, too, where Celery will not."""
    match outcome:
        case Succeeded(result, _, waiting_tasks) if others := _without(own_task_id, waiting_tasks):
            event_loop.aside(tell_success, others, result)
        case Failed(result, _, waiting_tasks) if others := _without(own_task_id, waiting_tasks):
            event_loop.aside(tell_failure, others, JobFailedError(describe_error(result)))
        case Cancelled(_, waiting_tasks) if all_ := _with(own_task_id, waiting_tasks):
            event_loop.aside(tell_revoked, all_, "cancelled")
        case Parked(result=dict(result), waiting_tasks=waiting_tasks) if all_ := _with(own_task_id, waiting_tasks):
            event_loop.aside(tell_parked, all_, result)
    return outcome


def _with(own_task_id: str | None, waiting_tasks: tuple[str, ...]) -> set[str]:
    return {*waiting_tasks, own_task_id} if own_task_id else {*waiting_tasks}


def _without(own_task_id: str | None, waiting_tasks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(task_id for task_id in waiting_tasks if task_id != own_task_id)
