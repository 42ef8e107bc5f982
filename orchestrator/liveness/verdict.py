"""What is wrong with the fleet, in sentences with a remedy. Pure: how long things last was measured elsewhere."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from orchestrator.liveness.registry import Fleet, WorkerSeen

REMEMBERED: Final = 10
"""A lost worker is a fault for this many times the silence allowed; after that it is one that once was."""


class Condition(StrEnum):
    """How a worker does."""

    WORKING = "working"
    STOPPING = "stopping"
    SILENT = "silent"
    """It lives, has room, and neither gets nor asks for jobs."""
    LOST = "lost"
    """Not heard of, and it has not taken its leave."""
    GONE = "gone"
    """Lost long ago, or while it was stopping."""


def decide_condition(worker: WorkerSeen, silent_seconds: float) -> Condition:
    if worker.unseen_seconds >= silent_seconds:
        is_forgotten = worker.is_stopping or worker.unseen_seconds >= REMEMBERED * silent_seconds
        return Condition.GONE if is_forgotten else Condition.LOST
    if worker.is_stopping:
        return Condition.STOPPING
    return Condition.SILENT if worker.quiet_seconds >= silent_seconds else Condition.WORKING


def find_faults(fleet: Fleet, silent_seconds: float) -> tuple[str, ...]:
    """One sentence for each worker that does not work, and one if nobody serves the queue."""
    return tuple(_list_faults(fleet, silent_seconds))


def _list_faults(fleet: Fleet, silent_seconds: float) -> Iterator[str]:
    conditions = {worker.name: decide_condition(worker, silent_seconds) for worker in fleet.workers}
    for worker in fleet.workers:
        if conditions[worker.name] is Condition.SILENT:
            yield _describe_silent(worker)
        elif conditions[worker.name] is Condition.LOST:
            yield _describe_lost(worker)
    serving = (Condition.WORKING, Condition.SILENT)
    if fleet.has_queued_jobs and not any(
        worker.concurrency and conditions[worker.name] in serving for worker in fleet.workers
    ):
        yield "Jobs are queued and no worker serves them: start one with `llmyard worker`."


def _describe_silent(worker: WorkerSeen) -> str:
    return (
        f"Worker {worker.node} ({worker.name}) lives but has neither got nor asked for a job for"
        f" {worker.quiet_seconds:.0f} s: see whether it reaches the broker, then stop it with SIGTERM and start it"
        " again, if it has not done so by itself."
    )


def _describe_lost(worker: WorkerSeen) -> str:
    return (
        f"Worker {worker.node} ({worker.name}) has not been heard of for {worker.unseen_seconds:.0f} s, with"
        f" {worker.jobs} jobs in hand, which others get: start it again, or look whether it is stopped or cut off."
    )
