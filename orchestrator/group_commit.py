"""The ledger as the many runs of one worker process use it: what they claim and how they end is committed together.

One transaction takes whatever came within 20 ms, or a hundred steps; alone, a step is committed at once. A commit costs
the disk's patience whatever is in it, so that is what lets a worker do hundreds of jobs a second with every one on
record. Nobody goes on before the commit: a claim is a claim, and an answer an answer, when the database says so.
A slice is a group already, and is claimed by itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from orchestrator.failed_requests import store as failed_requests
from orchestrator.grouping import Grouping
from orchestrator.jobs import claims, endings, store
from orchestrator.jobs.claims import ClaimedJob, NewClaims, NewJob, WaitingJob
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.statements import PLAN_ONCE
from orchestrator.jobs.store import Claim
from orchestrator.messages import Message
from shared.database import DATABASE_ERRORS, Database, patiently
from shared.errors import NotFoundError

_ANSWERED: Final = (JobState.SUCCEEDED, JobState.FAILED)

StepT = TypeVar("StepT")


class _End(NamedTuple):
    claim: Claim
    ending: Ending


_Step = NewJob | WaitingJob | _End


class Recorded(NamedTuple):
    """What became of a run's ending."""

    counts: bool
    """False: the run no longer owned its job. What it paid is kept."""
    waiting_tasks: tuple[str, ...] = ()
    """Further Celery tasks that wait for the job."""


class GroupCommit:
    """Of one worker process."""

    def __init__(self, database: Database, *, worker: str, lease_seconds: float) -> None:
        self._database = database
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._steps: Grouping[_Step, Claim | Recorded | None] = Grouping(self._commit)

    async def claim_new(self, message: Message, task_id: str) -> Claim | None:
        """See `orchestrator.jobs.deliveries.Ledger`; so the next two."""
        claimed = await self._steps.put(NewJob(uuid7(), message, task_id, claim_id=uuid7()))
        assert claimed is None or isinstance(claimed, Claim)
        return claimed

    async def claim(self, job_id: UUID, task_id: str) -> Claim | None:
        claimed = await self._steps.put(WaitingJob(job_id, task_id, claim_id=uuid7()))
        assert claimed is None or isinstance(claimed, Claim)
        return claimed

    async def claim_slice(self, tenant_id: str, job_ids: Sequence[UUID]) -> list[Claim]:
        jobs = [WaitingJob(job_id, str(job_id), claim_id=uuid7()) for job_id in job_ids]
        try:
            return await patiently(lambda: self._claim_slice(tenant_id, jobs))
        except DATABASE_ERRORS:
            # As of a group: Postgres has ended one of two that lock each other out, say.
            answers = [answer for job in jobs for answer in await self._commit([job])]
        return [claimed for claimed in answers if isinstance(claimed, Claim)]

    async def end(self, claim: Claim, ending: Ending) -> Recorded:
        """Write down how a run ended that leaves its job answered or failed, if it still owns it."""
        assert ending.state in _ANSWERED, "other endings have more to write, and as their tenant"
        recorded = await self._steps.put(_End(claim, ending))
        assert isinstance(recorded, Recorded)
        return recorded

    async def _commit(self, steps: Sequence[_Step]) -> list[Claim | Recorded | Exception | None]:
        """One bad step does not fail its neighbours: each then stands alone."""
        try:
            return list(await patiently(lambda: self._write(steps)))
        except DATABASE_ERRORS as error:
            if len(steps) == 1:
                return [error]
        return [answer for step in steps for answer in await self._commit([step])]

    async def _claim_slice(self, tenant_id: str, jobs: Sequence[WaitingJob]) -> list[Claim]:
        """A group as it stands, and one tenant's, who may read what it asked: a transaction less."""
        async with self._database.as_tenant(tenant_id, PLAN_ONCE) as connection:
            claimed = await claims.claim_known(connection, jobs, self._worker, self._lease_seconds)
            messages = await claims.read_messages(connection, [job.job_id for job in claimed.values()])
        return [_complete(job, messages) for job in claimed.values()]

    async def _write(self, steps: Sequence[_Step]) -> list[Claim | Recorded | Exception | None]:
        ends, new, known = _pick(steps, _End), _pick(steps, NewJob), _pick(steps, WaitingJob)
        async with self._database.as_system(PLAN_ONCE) as connection:
            recorded = await _record(connection, ends)
            taken = await claims.claim_new(connection, new, self._worker, self._lease_seconds) if new else NOBODY
            claimed = await claims.claim_known(connection, known, self._worker, self._lease_seconds) if known else {}
        messages = await self._read_messages([*_find_older(taken), *claimed.values()])
        answers: dict[int, Claim | Recorded | Exception | None] = {}
        answers |= {id(end): each for end, each in zip(ends, recorded, strict=True)}
        answers |= {id(job): _answer(job, taken, messages) for job in new}
        answers |= {id(job): _complete(claimed[job.claim_id], messages) for job in known if job.claim_id in claimed}
        return [answers.get(id(step)) for step in steps]

    async def _read_messages(self, jobs: Iterable[ClaimedJob]) -> dict[UUID, Message]:
        """As the tenants that sent them: the system role reads no payload."""
        by_tenant: defaultdict[str, list[UUID]] = defaultdict(list)
        for job in jobs:
            by_tenant[job.tenant_id].append(job.job_id)
        messages: dict[UUID, Message] = {}
        for tenant_id, job_ids in by_tenant.items():
            async with self._database.as_tenant(tenant_id) as connection:
                messages |= await claims.read_messages(connection, job_ids)
        return messages


NOBODY: Final = NewClaims({}, {}, frozenset())


async def _record(connection: AsyncConnection, ends: Sequence[_End]) -> list[Recorded]:
    if not ends:
        return []
    counted = await endings.record_all(connection, [(end.claim, end.ending) for end in ends])
    owned = [end for end in ends if (end.claim.job_id, end.claim.run) in counted]
    await _settle_failed_requests(connection, owned)
    waiting = await store.find_waiting_tasks_of(connection, [end.claim.job_id for end in owned])
    return [Recorded((end.claim.job_id, end.claim.run) in counted, waiting.get(end.claim.job_id, ())) for end in ends]


async def _settle_failed_requests(connection: AsyncConnection, ends: Sequence[_End]) -> None:
    """A first run has no failed request to settle."""
    for state in _ANSWERED:
        if job_ids := [end.claim.job_id for end in ends if end.claim.run > 1 and end.ending.state is state]:
            await failed_requests.end_all(connection, job_ids, answered=state is JobState.SUCCEEDED)


def _answer(job: NewJob, taken: NewClaims, messages: dict[UUID, Message]) -> Claim | Exception | None:
    claimed = taken.claimed.get(job.job_id)
    if claimed is not None:
        return _complete(claimed, {job.job_id: job.message} | messages)
    if job.message.tenant_id in taken.unknown_tenants:
        problem = f"no tenant {job.message.tenant_id!r}"
        return NotFoundError("tenant_id", problem, "add it with `llmyard agents load`")
    return None


def _find_older(taken: NewClaims) -> list[ClaimedJob]:
    """Jobs of messages that were sent before: what was stored then is what is run."""
    return [claimed for offered_id, claimed in taken.claimed.items() if claimed.job_id != offered_id]


def _complete(claimed: ClaimedJob, messages: dict[UUID, Message]) -> Claim:
    return Claim(
        claimed.job_id, claimed.tenant_id, claimed.task_id, claimed.run, messages[claimed.job_id], claimed.crash_count
    )


def _pick(steps: Sequence[_Step], kind: type[StepT]) -> list[StepT]:
    return [step for step in steps if isinstance(step, kind)]
