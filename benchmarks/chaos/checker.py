"""Compares the three records; pure. What it counts as a fault was seen from the outside, not told by the product."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from benchmarks.chaos.calls import Call
from benchmarks.chaos.ledger import LedgerJob, Reply
from benchmarks.chaos.recorder import Enqueue

TOLD: Final = {
    "succeeded": "SUCCESS",
    "failed": "FAILURE",
    "discarded": "FAILURE",
    "quarantined": "FAILURE",
    "cancelled": "REVOKED",
}
"""The final states of a job, and what a poller of its Celery tasks must read."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known once a row's faults are over and its jobs have had their time."""

    enqueues: Sequence[Enqueue]
    calls: Sequence[Call]
    jobs: Sequence[LedgerJob]
    replies: Sequence[Reply]
    expected_states: frozenset[str] = frozenset({"succeeded"})
    """Final states that are no surprise in this row."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the table. Counts of messages, but for the calls."""

    attempted: int
    acknowledged: int
    answered: int
    """Acknowledged, and with an answer in the ledger that is the one the model server gave."""
    lost: tuple[str, ...]
    """Acknowledged, and without a final state."""
    duplicated: tuple[str, ...]
    """More than one job or result, or pollers who were told different answers."""
    unexpected: tuple[str, ...]
    """Nobody sent it; it ended in a state that this row does not explain, or with somebody else's answer; or a poller
    was told of a success and the job had none.
    """
    unheard: tuple[str, ...]
    """Ended, but a poller's Celery result does not say so, or says something else."""
    calls: int
    extra_calls: int
    """Beyond one a message."""
    unexplained: tuple[str, ...]
    """Messages with more calls than the ledger has runs and attempts for."""
    ledger_usd: Decimal
    bill_usd: Decimal
    """By the server's own record."""

    @property
    def explained_calls(self) -> int:
        return self.extra_calls - len(self.unexplained)

    @property
    def faults(self) -> tuple[str, ...]:
        """In words; none is a pass."""
        found = {
            "lost": self.lost,
            "duplicated": self.duplicated,
            "unexpected": self.unexpected,
            "unheard": self.unheard,
            "called without a run row": self.unexplained,
        }
        named = tuple(f"{len(ids)} {word}: {', '.join(ids[:5])}" for word, ids in found.items() if ids)
        return named if self.ledger_usd <= self.bill_usd else (*named, "the ledger holds more than was charged")


def check(evidence: Evidence) -> Verdict:
    """What became of everything that was sent, and of everything that was not."""
    sent = {enqueue.message_id for enqueue in evidence.enqueues}
    acknowledged = {enqueue.message_id for enqueue in evidence.enqueues if enqueue.acknowledged_at is not None}
    jobs = group_jobs(evidence.jobs)
    called = Counter(call.question for call in evidence.calls)
    return Verdict(
        attempted=len(sent),
        acknowledged=len(acknowledged),
        answered=sum(any(map(is_answered, jobs[message_id])) for message_id in acknowledged),
        lost=tuple(sorted(message_id for message_id in acknowledged if not any(map(is_final, jobs[message_id])))),
        duplicated=find_duplicated(evidence, jobs),
        unexpected=find_unexpected(evidence, jobs, sent, called),
        unheard=find_unheard(evidence, jobs),
        calls=len(evidence.calls),
        extra_calls=len(evidence.calls) - len(called),
        unexplained=find_unexplained(jobs, called),
        ledger_usd=sum((job.cost_usd for job in evidence.jobs), Decimal(0)),
        bill_usd=sum((call.bill_usd for call in evidence.calls), Decimal(0)),
    )


def is_final(job: LedgerJob) -> bool:
    return job.state in TOLD


def is_answered(job: LedgerJob) -> bool:
    return job.state == "succeeded" and job.content == f"answer to {job.message_id}"


def group_jobs(jobs: Sequence[LedgerJob]) -> defaultdict[str, list[LedgerJob]]:
    by_message: defaultdict[str, list[LedgerJob]] = defaultdict(list)
    for job in jobs:
        by_message[job.message_id].append(job)
    return by_message


def find_duplicated(evidence: Evidence, jobs: dict[str, list[LedgerJob]]) -> tuple[str, ...]:
    twice = {message_id for message_id, found in jobs.items() if sum(job.results for job in found) > 1}
    several = {message_id for message_id, found in jobs.items() if len(found) > 1}
    told: defaultdict[str, set[str | None]] = defaultdict(set)
    for message_id, reply in pair_replies(evidence):
        if reply.state == "SUCCESS":
            told[message_id].add(reply.content)
    return tuple(sorted(twice | several | {message_id for message_id, contents in told.items() if len(contents) > 1}))


def find_unexpected(
    evidence: Evidence, jobs: Mapping[str, Sequence[LedgerJob]], sent: set[str], called: Counter[str]
) -> tuple[str, ...]:
    unsent = {job.message_id for job in evidence.jobs} | called.keys()
    surprises = {job.message_id for job in evidence.jobs if is_final(job) and not is_expected(job, evidence)}
    succeeded = {message_id for message_id, found in jobs.items() if any(job.state == "succeeded" for job in found)}
    told = {message_id for message_id, reply in pair_replies(evidence) if reply.state == TOLD["succeeded"]}
    return tuple(sorted((unsent - sent) | surprises | (told - succeeded)))


def is_expected(job: LedgerJob, evidence: Evidence) -> bool:
    return job.state in evidence.expected_states and (job.state != "succeeded" or is_answered(job))


def find_unheard(evidence: Evidence, jobs: Mapping[str, Sequence[LedgerJob]]) -> tuple[str, ...]:
    """Whoever waits for a task of a job that has ended must have been told how, and its answer if it has one."""
    due = {message_id: {build_due(job) for job in found if is_final(job)} for message_id, found in jobs.items()}
    return tuple(
        sorted(
            {
                message_id
                for message_id, reply in pair_replies(evidence)
                if due.get(message_id) and (reply.state, reply.content) not in due[message_id]
            }
        )
    )


def build_due(job: LedgerJob) -> tuple[str, str | None]:
    """State and content that a poller is to read; a job without an answer tells none."""
    return TOLD[job.state], job.content if job.state == "succeeded" else None


def pair_replies(evidence: Evidence) -> list[tuple[str, Reply]]:
    """Each acknowledged task's message, with what its poller reads; never told is `PENDING`, as Celery has it."""
    replies = {reply.task_id: reply for reply in evidence.replies}
    return [
        (enqueue.message_id, replies.get(enqueue.task_id, Reply(enqueue.task_id, "PENDING", None)))
        for enqueue in evidence.enqueues
        if enqueue.task_id is not None and enqueue.acknowledged_at is not None
    ]


def find_unexplained(jobs: dict[str, list[LedgerJob]], called: Counter[str]) -> tuple[str, ...]:
    """Each message as often as it was called beyond what the ledger accounts for."""
    return tuple(
        message_id
        for message_id, calls in sorted(called.items())
        for _ in range(max(0, calls - sum(job.calls_on_record for job in jobs.get(message_id, ()))))
    )
