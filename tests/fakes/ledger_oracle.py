"""The ledger as plain Python: what each operation is to do to one job, and what it is to answer; and the real one."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from orchestrator.jobs.lifecycle import NEXT_STATES, JobState, state_after_crash
from orchestrator.jobs.store import Claim
from orchestrator.messages import Message
from shared.database import Database
from tests.builders import build_message

Run = int
"""A run's number."""
NOBODY: frozenset[str] = frozenset()
SLOTS = (0, 1)
"""Jobs under way at a time: one that is ended makes room for another, and may still be heard of."""


@dataclass
class OracleJob:
    """One job as it ought to stand, and what time has done to it."""

    state: JobState = JobState.QUEUED
    crash_count: int = 0
    runs: list[str | None] = field(default_factory=list)
    """How each run ended, from run 1 on; None while it is open."""
    claim_id: UUID | None = None
    """Of the run in hand: it has a lease as long as this is set."""
    is_overdue: bool = False
    """The lease has run out."""
    is_undelivered: bool = False
    """Queued for so long that its message is taken for lost."""
    request: str | None = None
    """State of its failed request."""
    answered_by: Run | None = None
    paid: set[Run] = field(default_factory=set)

    @property
    def run(self) -> Run:
        return len(self.runs)

    def move(self, state: JobState) -> None:
        assert state in NEXT_STATES[self.state], f"{self.state} does not lead to {state}"
        self.state = state
        self.is_undelivered = False
        if state.is_final:
            self.answered_by = self.run
            self.settle(state)

    def settle(self, state: JobState) -> None:
        if self.request in ("parked", "replaying"):
            self.request = "answered" if state is JobState.SUCCEEDED else "discarded"

    def begin_run(self, claim_id: UUID) -> Run:
        self.move(JobState.RUNNING)
        self.runs.append(None)
        self.claim_id, self.is_overdue = claim_id, False
        return self.run

    def end_run(self, outcome: str) -> None:
        if self.claim_id is not None:
            self.runs[-1] = outcome
        self.claim_id = None

    def crash(self, outcome: str) -> None:
        self.end_run(outcome)
        self.crash_count += 1
        self.move(state_after_crash(self.crash_count))

    def tell(self) -> JobState | None:
        """What there is to tell to whoever comes late."""
        return self.state if self.state.is_final or self.state is JobState.PARKED else None

    def read(self) -> dict[str, Any]:
        """As it is read from the tables."""
        return {
            "state": self.state.value,
            "run": self.run,
            "crash_count": self.crash_count,
            "is_finished": self.state.is_final,
            "leased_run": None if self.claim_id is None else self.run,
            "answered_by": self.answered_by,
            "request": self.request,
            "runs": self.runs,
            "paid": sorted(self.paid),
        }


class Oracle:
    """Every job by the id of its message. Each method does what one transaction is to do, and says what it answers."""

    def __init__(self) -> None:
        self.jobs: dict[str, OracleJob] = {}

    def find(self, *states: JobState) -> frozenset[str]:
        return frozenset(name for name, job in self.jobs.items() if job.state in states)

    def add(self, name: str) -> bool:
        is_new = name not in self.jobs
        self.jobs.setdefault(name, OracleJob())
        return is_new

    def claim(self, name: str, claim_id: UUID) -> Run | None:
        job = self.jobs.get(name)
        if job and job.state is JobState.QUEUED:
            return job.begin_run(claim_id)
        return job.run if job and job.claim_id == claim_id else None

    def owns(self, name: str, run: Run) -> bool:
        job = self.jobs[name]
        return job.state is JobState.RUNNING and job.run == run

    def report(self, name: str, run: Run, state: JobState, outcome: str, *, has_paid: bool) -> JobState | None:
        """Answers what the worker is to tell: the state that is now the job's, or nothing yet."""
        job = self.jobs[name]
        if has_paid:
            job.paid.add(run)
        if self.owns(name, run):
            job.end_run(outcome)
            job.move(state)
            job.request = "parked" if state is JobState.PARKED else job.request
            return state
        if job.runs[run - 1] == "expired":
            job.runs[run - 1] = "stale"
            job.crash_count -= 0 if job.state.is_final else 1
        return job.tell()

    def crash(self, name: str, run: Run) -> JobState | None:
        """Answers likewise."""
        job = self.jobs[name]
        if not self.owns(name, run):
            return job.tell()
        job.crash("crashed")
        return job.state

    def renew(self, runs: Collection[tuple[str, Run]]) -> frozenset[str]:
        """Answers those that are still in hand."""
        kept = frozenset(
            name for name, run in runs if self.jobs[name].claim_id is not None and self.jobs[name].run == run
        )
        for name in kept:
            self.jobs[name].is_overdue = False
        return kept

    def sweep(self, skipped: frozenset[str] = NOBODY) -> tuple[frozenset[str], int]:
        """Answers which jobs are to be sent again, and how many were quarantined."""
        seen = {name: job for name, job in self.jobs.items() if name not in skipped}
        undelivered = {name for name, job in seen.items() if job.is_undelivered}
        lost = {name: job for name, job in seen.items() if job.claim_id is not None and job.is_overdue}
        for job in lost.values():
            job.crash("expired")
        for name in undelivered:
            seen[name].is_undelivered = False
        queued = {name for name, job in lost.items() if job.state is JobState.QUEUED}
        return frozenset(queued | undelivered), len(lost) - len(queued)

    def send_back(self, names: Collection[str]) -> frozenset[str]:
        """Answers those that were parked."""
        parked = frozenset(names) & self.find(JobState.PARKED)
        for name in parked:
            self.jobs[name].move(JobState.QUEUED)
            self.jobs[name].request = "replaying"
        return parked

    def discard(self, name: str) -> bool:
        is_parked = name in self.find(JobState.PARKED)
        if is_parked:
            self.jobs[name].move(JobState.DISCARDED)
        return is_parked

    def cancel(self, name: str) -> bool:
        job = self.jobs.get(name)
        if job is None or job.state.is_final:
            return False
        job.end_run("cancelled")
        job.move(JobState.CANCELLED)
        return True


@dataclass
class Ledger:
    """The database, and what is known of it outside."""

    database: Database
    ids: dict[str, UUID] = field(default_factory=dict)
    """Of jobs, by the id of their message."""
    ended: dict[str, Any] = field(default_factory=dict)
    """Final jobs, as they were when they first were seen to be."""
    held: list[Claim] = field(default_factory=list)
    """Every claim that a worker was ever given; none forgets."""
    messages: list[Message] = field(default_factory=lambda: [build_message(id=f"m-{slot}") for slot in SLOTS])
    """The latest of each slot."""

    def renew_message(self, slot: int) -> None:
        if self.messages[slot].id in self.ended:
            self.messages[slot] = build_message(id=f"m-{slot}-{len(self.ended)}")

    def names(self, ids: Any) -> frozenset[str]:
        return frozenset(name for name, job_id in self.ids.items() if job_id in ids)
