"""What may happen to the ledger, each as a value: how it is done for real, and what the oracle has to say to it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from orchestrator.failed_requests import discards, replay
from orchestrator.failed_requests import store as failed_requests
from orchestrator.group_commit import GroupCommit
from orchestrator.jobs import claims, endings, store, sweeps
from orchestrator.jobs.claims import ClaimedJob, NewJob, WaitingJob
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim
from orchestrator.messages import Message
from orchestrator.outcomes import Cancelled, Crashed, Failed, HandledElsewhere, Outcome, Parked, RetryLater, Succeeded
from orchestrator.reconcile import reconcile
from orchestrator.recorder import Recorder, build_ending
from shared.attempts import Usage
from shared.database import patiently
from tests.builders import build_attempt
from tests.fakes.ledger_oracle import NOBODY, Ledger, Oracle
from tests.ledger import complete

OUTCOMES: dict[str, Outcome] = {
    "succeeded": Succeeded({"content": "fine"}, (build_attempt(usage=Usage(3, 2)),)),
    "failed": Failed({"error": {"type": "T", "message": "m"}}, (build_attempt(error_type="T"),)),
    "parked": Parked("LLMOverloadedError", "down", None, (build_attempt(error_type="T"),)),
    "handed back": RetryLater("the worker is stopping"),
    "crashed": Crashed("killed by signal 9"),
}
_TOLD = {Succeeded: JobState.SUCCEEDED, Parked: JobState.PARKED, Cancelled: JobState.CANCELLED}
LEASE_SECONDS = 3600.0


class Operation(ABC):
    """One transaction, or nearly; a value, so that it can be printed and done again."""

    is_patient: ClassVar[bool] = True
    """Whoever does it repeats it when the database was away; the others leave it to their next beat."""

    @abstractmethod
    async def perform(self, ledger: Ledger) -> Any: ...

    @abstractmethod
    def apply(self, oracle: Oracle, answer: Any) -> Any:
        """What it is to answer; the answer it gave is there for what only it can know, and None if it was lost."""

    def aim(self, ledger: Ledger) -> "Operation | None":
        """With what it needs to know of the moment; None if there is nothing to do it to."""
        return self

    def variants(self, other: "Operation") -> "Iterable[Operation]":
        """The same, with any of the other's jobs locked by it; most wait for that."""
        return (self,)

    @property
    def names(self) -> frozenset[str]:
        """The jobs it is about, if it is about certain ones."""
        return NOBODY


@dataclass(frozen=True)
class OnOneJob(Operation):
    """What names its message."""

    slot: int
    message: Message | None = field(default=None, repr=False)

    def aim(self, ledger: Ledger) -> "OnOneJob | None":
        return replace(self, message=ledger.messages[self.slot])

    @property
    def name(self) -> str:
        return self.message.id if self.message else ""

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.name})


@dataclass(frozen=True)
class Arriving(OnOneJob):
    """What may begin another job, once the last one of its slot is ended."""

    is_new: bool = True

    def aim(self, ledger: Ledger) -> OnOneJob | None:
        if self.is_new:
            ledger.renew_message(self.slot)
        return super().aim(ledger)


@dataclass(frozen=True)
class Submit(Arriving):
    """Over HTTP."""

    job_id: UUID = field(default_factory=uuid7, repr=False)

    async def perform(self, ledger: Ledger) -> bool:
        assert self.message
        async with ledger.database.as_tenant("default") as connection:
            return await store.add(connection, self.job_id, self.message, "task-1")

    def apply(self, oracle: Oracle, answer: object) -> bool:
        return oracle.add(self.name)


@dataclass(frozen=True)
class Deliver(Arriving):
    """A message from a producer that speaks Celery: for the first time, or again."""

    job_id: UUID = field(default_factory=uuid7, repr=False)
    claim_id: UUID = field(default_factory=uuid7, repr=False)

    def aim(self, ledger: Ledger) -> OnOneJob | None:
        aimed = super().aim(ledger)
        return aimed and replace(self, message=aimed.message, job_id=uuid7(), claim_id=uuid7())

    async def perform(self, ledger: Ledger) -> int | None:
        async with ledger.database.as_system() as connection:
            claimed = await self._claim(connection, ledger)
        assert self.message
        if claimed is not None:
            ledger.held.append(complete(claimed, self.message))
        return claimed and claimed.run

    async def _claim(self, connection: AsyncConnection, ledger: Ledger) -> ClaimedJob | None:
        assert self.message
        new = NewJob(self.job_id, self.message, "task-1", self.claim_id)
        return (await claims.claim_new(connection, [new], "w-1", LEASE_SECONDS)).claimed.get(self.job_id)

    def apply(self, oracle: Oracle, answer: object) -> int | None:
        oracle.add(self.name)
        return oracle.claim(self.name, self.claim_id)


@dataclass(frozen=True)
class DeliverKnown(Deliver):
    """A message that names a job."""

    is_new: bool = False

    async def _claim(self, connection: AsyncConnection, ledger: Ledger) -> ClaimedJob | None:
        waiting = WaitingJob(ledger.ids.get(self.name, self.job_id), "task-1", self.claim_id)
        return (await claims.claim_known(connection, [waiting], "w-1", LEASE_SECONDS)).get(self.claim_id)

    def apply(self, oracle: Oracle, answer: object) -> int | None:
        return oracle.claim(self.name, self.claim_id)


@dataclass(frozen=True)
class DeliverAll(Operation):
    """Several messages in one transaction, in any order; one of them may be there twice."""

    slots: tuple[int, ...]
    brought: tuple[NewJob, ...] = field(default=(), repr=False)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(new.message.id for new in self.brought)

    def aim(self, ledger: Ledger) -> "DeliverAll":
        for slot in self.slots:
            ledger.renew_message(slot)
        new = (NewJob(uuid7(), ledger.messages[slot], "task-1", uuid7()) for slot in self.slots)
        return replace(self, brought=tuple(new))

    async def perform(self, ledger: Ledger) -> frozenset[tuple[str, int]]:
        async with ledger.database.as_system() as connection:
            taken = await claims.claim_new(connection, self.brought, "w-1", LEASE_SECONDS)
        won = [complete(taken.claimed[new.job_id], new.message) for new in self.brought if new.job_id in taken.claimed]
        ledger.held.extend(won)
        assert len({claim.job_id for claim in won}) == len(won), "a run is one claim's"
        return frozenset((claim.message.id, claim.run) for claim in won)

    def apply(self, oracle: Oracle, answer: object) -> frozenset[tuple[str, int]]:
        first = {new.message.id: new.claim_id for new in reversed(self.brought)}
        for name in first:
            oracle.add(name)
        claimed = ((name, oracle.claim(name, claim_id)) for name, claim_id in first.items())
        return frozenset((name, run) for name, run in claimed if run is not None)


@dataclass(frozen=True)
class Report(Operation):
    """A worker tells how a run ended: the one in hand, or one of long ago."""

    which: int
    """Of the claims ever given, counted from the last."""
    outcome: str
    claim: Claim | None = field(default=None, repr=False)
    is_told_late: bool = False
    """A stale run reads what its job has in a transaction of its own, perhaps after what happened meanwhile."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.claim.message.id}) if self.claim else NOBODY

    def variants(self, other: Operation) -> "Iterable[Report]":
        return self, replace(self, is_told_late=True)

    def aim(self, ledger: Ledger) -> "Report | None":
        held = ledger.held
        return replace(self, claim=held[-1 - self.which % len(held)]) if held else None

    async def perform(self, ledger: Ledger) -> JobState | None:
        assert self.claim
        told = await Recorder(ledger.database, self._open_ledger(ledger)).record(self.claim, OUTCOMES[self.outcome])
        if isinstance(told, HandledElsewhere):
            return None
        return JobState.QUEUED if isinstance(told, RetryLater) else _TOLD.get(type(told), JobState.FAILED)

    def _open_ledger(self, ledger: Ledger) -> GroupCommit:
        return GroupCommit(ledger.database, worker="w-1", lease_seconds=LEASE_SECONDS)

    def apply(self, oracle: Oracle, answer: Any) -> Any:
        assert self.claim
        name, run = self.claim.message.id, self.claim.run
        is_stale = not oracle.owns(name, run)
        state = self._foretell(oracle, name, run)
        if is_stale and self.is_told_late:
            return answer
        # To whoever waits, every end without an answer is a failure, save the one that was asked for.
        is_failure = state is not None and state.is_final and state not in _TOLD.values()
        return JobState.FAILED if is_failure else state

    def _foretell(self, oracle: Oracle, name: str, run: int) -> JobState | None:
        outcome = OUTCOMES[self.outcome]
        if isinstance(outcome, Crashed):
            return oracle.crash(name, run)
        ending = build_ending(outcome)
        return oracle.report(name, run, ending.state, ending.outcome, has_paid=bool(ending.attempts))


@dataclass(frozen=True)
class ReportAll(Operation):
    """Several runs in one transaction, some of them perhaps of one job; what was said of each counts by itself."""

    outcomes: tuple[str, ...]
    """Of the claims given last; each ends its job."""
    ended: tuple[tuple[Claim, Ending], ...] = field(default=(), repr=False)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(claim.message.id for claim, _ in self.ended)

    def aim(self, ledger: Ledger) -> "ReportAll | None":
        endings = (build_ending(OUTCOMES[outcome]) for outcome in self.outcomes)
        ended = tuple(zip(reversed(ledger.held), endings, strict=False))
        return replace(self, ended=ended) if ended else None

    async def perform(self, ledger: Ledger) -> frozenset[tuple[str, int]]:
        names = {(claim.job_id, claim.run): (claim.message.id, claim.run) for claim, _ in self.ended}
        async with ledger.database.as_system() as connection:
            counted = await endings.record_all(connection, self.ended)
            for state in (JobState.SUCCEEDED, JobState.FAILED):
                is_answered = state is JobState.SUCCEEDED
                ends = [claim for claim, ending in self.ended if ending.state is state]
                owned = [claim.job_id for claim in ends if (claim.job_id, claim.run) in counted]
                await failed_requests.end_all(connection, owned, answered=is_answered)
        return frozenset(names[each] for each in counted)

    def apply(self, oracle: Oracle, answer: object) -> frozenset[tuple[str, int]]:
        counted = set()
        for claim, ending in sorted(self.ended, key=lambda each: each[0].run):
            key = (claim.message.id, claim.run)
            if oracle.owns(*key):
                counted.add(key)
            oracle.report(*key, ending.state, ending.outcome, has_paid=bool(ending.attempts))
        return frozenset(counted)


@dataclass(frozen=True)
class Renew(Operation):
    """A heartbeat for every run that some worker believes to have."""

    is_patient = False
    held: tuple[Claim, ...] = field(default=(), repr=False)

    def aim(self, ledger: Ledger) -> "Renew":
        return replace(self, held=tuple(ledger.held))

    async def perform(self, ledger: Ledger) -> frozenset[str]:
        runs = {(claim.job_id, claim.run) for claim in self.held}
        async with ledger.database.as_system() as connection:
            return ledger.names(await sweeps.renew_leases(connection, runs, lease_seconds=LEASE_SECONDS))

    def apply(self, oracle: Oracle, answer: object) -> frozenset[str]:
        return oracle.renew({(claim.message.id, claim.run) for claim in self.held})


@dataclass(frozen=True)
class Sweep(Operation):
    """Beat finds what got stuck."""

    is_patient = False
    skipped: frozenset[str] = NOBODY

    def variants(self, other: Operation) -> Iterator["Sweep"]:
        for number in range(len(other.names) + 1):
            for names in combinations(sorted(other.names), number):
                yield replace(self, skipped=frozenset(names))

    async def perform(self, ledger: Ledger) -> tuple[frozenset[str], int]:
        stuck = await reconcile(ledger.database, lease_seconds=0.0, backlog=0)
        assert len(stuck.waiting) == len({job.job_id for job in stuck.waiting})
        return ledger.names([job.job_id for job in stuck.waiting]), len(stuck.quarantined)

    def apply(self, oracle: Oracle, answer: object) -> tuple[frozenset[str], int]:
        return oracle.sweep(self.skipped)


@dataclass(frozen=True)
class Drain(Operation):
    """Beat sends back what is parked, as many as the pace allows."""

    is_patient = False

    async def perform(self, ledger: Ledger) -> frozenset[str]:
        return ledger.names([job.job_id for job in await replay.release_due(ledger.database)])

    def apply(self, oracle: Oracle, answer: Any) -> frozenset[str]:
        return oracle.send_back(answer)


@dataclass(frozen=True)
class SendBack(OnOneJob):
    """An operator replays a job by hand."""

    def aim(self, ledger: Ledger) -> OnOneJob | None:
        return super().aim(ledger) if ledger.messages[self.slot].id in ledger.ids else None

    async def perform(self, ledger: Ledger) -> frozenset[str]:
        async with ledger.database.as_system() as connection:
            sent = await replay.send_back(connection, [ledger.ids[self.name]])
        return ledger.names([job.job_id for job in sent])

    def apply(self, oracle: Oracle, answer: object) -> frozenset[str]:
        return oracle.send_back([self.name])


@dataclass(frozen=True)
class Discard(SendBack):
    """An operator gives a parked job up."""

    async def perform(self, ledger: Ledger) -> Any:
        async with ledger.database.as_system() as connection:
            ids = [ledger.ids[self.name]]
            return bool(await discards.discard_jobs(connection, ids, error_type=discards.BY_HAND, reason="why not"))

    def apply(self, oracle: Oracle, answer: object) -> Any:
        return oracle.discard(self.name)


@dataclass(frozen=True)
class Cancel(SendBack):
    """Somebody wants it no more."""

    async def perform(self, ledger: Ledger) -> Any:
        async with ledger.database.as_tenant("default") as connection:
            cancelled_at = await endings.cancel(connection, ledger.ids[self.name], {"error": "cancelled"})
            if cancelled_at is not None:
                await failed_requests.end(connection, ledger.ids[self.name], answered=False)
        return cancelled_at is not None

    def apply(self, oracle: Oracle, answer: object) -> Any:
        return oracle.cancel(self.name)


async def do(operation: Operation, ledger: Ledger) -> Any:
    """As its caller does it."""
    if operation.is_patient:
        return await patiently(lambda: operation.perform(ledger))
    return await operation.perform(ledger)
