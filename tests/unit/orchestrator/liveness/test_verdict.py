"""When a worker is a fault, and what people are told of it."""

from dataclasses import replace

import pytest

from orchestrator.liveness.registry import Fleet, WorkerSeen
from orchestrator.liveness.verdict import REMEMBERED, Condition, decide_condition, find_faults

SILENT = 60.0
WELL = WorkerSeen("m:1", "llmyard@m", 64, False, age_seconds=900, unseen_seconds=3, quiet_seconds=1)


@pytest.mark.parametrize(
    ("worker", "condition"),
    [
        (WELL, Condition.WORKING),
        (replace(WELL, quiet_seconds=SILENT - 1), Condition.WORKING),
        (replace(WELL, quiet_seconds=SILENT), Condition.SILENT),
        (replace(WELL, quiet_seconds=SILENT, is_stopping=True), Condition.STOPPING),
        (replace(WELL, unseen_seconds=SILENT), Condition.LOST),
        (replace(WELL, unseen_seconds=SILENT, is_stopping=True), Condition.GONE),
        (replace(WELL, unseen_seconds=REMEMBERED * SILENT), Condition.GONE),
    ],
)
def test_a_worker_is_judged_by_what_it_was_seen_to_do(worker: WorkerSeen, condition: Condition) -> None:
    assert decide_condition(worker, SILENT) is condition


def test_a_fleet_that_works_has_no_faults() -> None:
    assert find_faults(Fleet((WELL,), has_queued_jobs=True), SILENT) == ()
    assert find_faults(Fleet((), has_queued_jobs=False), SILENT) == ()


def test_each_fault_names_its_worker_and_what_to_do() -> None:
    silent, lost = replace(WELL, name="s:3", quiet_seconds=75.0), replace(WELL, name="n:2", unseen_seconds=90.0, jobs=3)
    told = find_faults(Fleet((WELL, silent, lost), has_queued_jobs=True), SILENT)
    assert [text.split(":")[0] for text in told] == ["Worker llmyard@m (s", "Worker llmyard@m (n"]
    assert "neither got nor asked for a job for 75 s" in told[0]
    assert "SIGTERM" in told[0]
    assert "not been heard of for 90 s, with 3 jobs in hand" in told[1]


@pytest.mark.parametrize(
    "nobody",
    [
        (),
        (replace(WELL, is_stopping=True),),
        (replace(WELL, concurrency=0),),
        (replace(WELL, unseen_seconds=REMEMBERED * SILENT),),
    ],
    ids=["none", "one that stops", "one for the sweeps only", "one long gone"],
)
def test_queued_jobs_that_nobody_serves_are_a_fault(nobody: tuple[WorkerSeen, ...]) -> None:
    (told,) = find_faults(Fleet(nobody, has_queued_jobs=True), SILENT)
    assert "`llmyard worker`" in told
    assert find_faults(Fleet(nobody, has_queued_jobs=False), SILENT) == ()
