"""Claims of many jobs at once, whoever's they are: by the system role, one statement for all of them.

A slice's jobs are all one tenant's, and may be claimed as that tenant. The transaction is to be begun with `PLAN_ONCE`.

Each may be repeated when its reply was lost: a claim is known by its own id. Two groups that hold the same jobs do not
lock each other out, as both take them in one order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs.statements import fetch
from orchestrator.messages import Message


@dataclass(frozen=True, slots=True)
class NewJob:
    """A message that may or may not be a job yet, and the id it gets if it is not."""

    job_id: UUID
    message: Message
    task_id: str
    """The Celery task that brought it, and that waits for the answer."""
    claim_id: UUID
    """Tells a claim that was made, and whose answer was lost, from somebody else's."""


class WaitingJob(NamedTuple):
    """A job that has its row, as a message or a slice names it."""

    job_id: UUID
    task_id: str
    """The Celery task that brought it: the job's own, or a further one that then waits for the answer too."""
    claim_id: UUID
    """As above."""


class ClaimedJob(NamedTuple):
    """A claim without what was asked, which the system role may not read."""

    job_id: UUID
    tenant_id: str
    task_id: str
    """The job's own Celery task."""
    run: int
    crash_count: int


@dataclass(frozen=True, slots=True)
class NewClaims:
    """What became of messages, each by the id that was offered for its job."""

    claimed: dict[UUID, ClaimedJob]
    """Those that have a run now; the job has another id where the tenant had sent its message before."""
    found: dict[UUID, UUID]
    """Jobs of messages that were sent before, and that wait for no run."""
    unknown_tenants: frozenset[str]


_TAKE_IN = text(
    """
    with offered as materialized (
        select * from unnest(
            cast(:job_ids as uuid[]), cast(:tenant_ids as text[]), cast(:message_ids as text[]),
            cast(:bodies as text[]), cast(:task_ids as text[]), cast(:claim_ids as uuid[])
        ) as offered (job_id, tenant_id, message_id, body, task_id, claim_id)
    ),
    message as (
        insert into messages (job_id, tenant_id, message_id, body)
        select job_id, tenant_id, message_id, cast(body as jsonb) from offered
        where (select true from tenants where id = tenant_id)
        on conflict (tenant_id, message_id) do nothing
        returning job_id
    ),
    taken as materialized (select * from offered where job_id in (select job_id from message)),
    job as (
        insert into jobs (id, tenant_id, task_id, state, run)
        select job_id, tenant_id, task_id, 'running', 1 from taken
    ),
    first_run as (
        insert into runs (job_id, number, tenant_id, worker)
        select job_id, 1, tenant_id, cast(:worker as text) from taken
    ),
    lease as (
        insert into leases (job_id, run, tenant_id, worker, claim_id, lease_until)
        select job_id, 1, tenant_id, cast(:worker as text), claim_id,
               now() + make_interval(secs => cast(:lease_seconds as double precision))
        from taken
    )
    select job_id from taken
    """
)

_FIND_OFFERED = text(
    """
    select job_id as offered_id, (select true from tenants where id = offered.tenant_id) as is_known, (
        select job_id from messages
        where messages.tenant_id = offered.tenant_id and messages.message_id = offered.message_id
    ) as job_id
    from unnest(cast(:job_ids as uuid[]), cast(:tenant_ids as text[]), cast(:message_ids as text[]))
         as offered (job_id, tenant_id, message_id)
    """
)

# `= any (array[…])` can be looked up and nothing else: a plan that was made while the tables were empty, and kept,
# reads none from end to end however they grow. It takes rows in the order given, which is the order of the locks.
_CLAIM = text(
    """
    with job as (
        update jobs set state = 'running', run = jobs.run + 1
        from unnest(cast(:job_ids as uuid[]), cast(:task_ids as text[]), cast(:claim_ids as uuid[]))
             as wanted (job_id, task_id, claim_id)
        where id = any (array[wanted.job_id]) and state = 'queued'
        returning id, tenant_id, jobs.task_id, jobs.run, crash_count, claim_id, wanted.task_id as brought_by
    ),
    new_run as (
        insert into runs (job_id, number, tenant_id, worker) select id, run, tenant_id, cast(:worker as text) from job
    ),
    lease as (
        insert into leases (job_id, run, tenant_id, worker, claim_id, lease_until)
        select id, run, tenant_id, cast(:worker as text), claim_id,
               now() + make_interval(secs => cast(:lease_seconds as double precision))
        from job
    ),
    shared as (
        insert into waiting_tasks (job_id, task_id, tenant_id)
        select id, unnest(array[task_id, brought_by]), tenant_id from job where task_id <> brought_by
        on conflict do nothing
    )
    select id, tenant_id, task_id, run, crash_count, claim_id from job
    """
)

_FIND_CLAIMS = text(
    """
    select jobs.id, jobs.tenant_id, task_id, jobs.run, crash_count, leases.claim_id
    from unnest(cast(:job_ids as uuid[]), cast(:claim_ids as uuid[])) as wanted (job_id, claim_id)
    join leases on leases.job_id = any (array[wanted.job_id]) and leases.claim_id = wanted.claim_id
    join jobs on jobs.id = any (array[leases.job_id])
    """
)

_READ_MESSAGES = text(
    """
    select id, (select cast(body as text) from messages where job_id = id) as body
    from unnest(cast(:job_ids as uuid[])) as id
    """
)


async def claim_new(
    connection: AsyncConnection, jobs: Sequence[NewJob], worker: str, lease_seconds: float
) -> NewClaims:
    """Take messages in and claim their first runs; where a tenant has sent one before, claim the job it became."""
    ordered = sorted(jobs, key=lambda job: (job.message.tenant_id, job.message.id))
    parameters = {
        **_offer(ordered),
        "bodies": [job.message.model_dump_json() for job in ordered],
        "task_ids": [job.task_id for job in ordered],
        "claim_ids": [job.claim_id for job in ordered],
        "worker": worker,
        "lease_seconds": lease_seconds,
    }
    taken = {row[0] for row in await fetch(connection, _TAKE_IN, parameters)}
    claimed = {
        job.job_id: ClaimedJob(job.job_id, job.message.tenant_id, job.task_id, 1, 0)
        for job in ordered
        if job.job_id in taken
    }
    if len(taken) == len(ordered):
        return NewClaims(claimed, {}, frozenset())
    others = [job for job in ordered if job.job_id not in taken]
    again = await _claim_again(connection, others, worker, lease_seconds)
    return NewClaims(claimed | again.claimed, again.found, again.unknown_tenants)


async def _claim_again(
    connection: AsyncConnection, jobs: Sequence[NewJob], worker: str, lease_seconds: float
) -> NewClaims:
    """Messages that no job was made of: as a rule because they are one already."""
    rows = await fetch(connection, _FIND_OFFERED, _offer(jobs))
    by_id = {job.job_id: job for job in jobs}
    found = {row["offered_id"]: row["job_id"] for row in rows if row["job_id"]}
    waiting = [WaitingJob(job_id, by_id[offered].task_id, by_id[offered].claim_id) for offered, job_id in found.items()]
    claims = await claim_known(connection, waiting, worker, lease_seconds) if waiting else {}
    claimed = {offered: claims[by_id[offered].claim_id] for offered in found if by_id[offered].claim_id in claims}
    return NewClaims(
        claimed,
        {offered: job_id for offered, job_id in found.items() if offered not in claimed},
        frozenset(by_id[row["offered_id"]].message.tenant_id for row in rows if not row["is_known"]),
    )


def _offer(jobs: Sequence[NewJob]) -> dict[str, Any]:
    return {
        "job_ids": [job.job_id for job in jobs],
        "tenant_ids": [job.message.tenant_id for job in jobs],
        "message_ids": [job.message.id for job in jobs],
    }


async def claim_known(
    connection: AsyncConnection, jobs: Sequence[WaitingJob], worker: str, lease_seconds: float
) -> dict[UUID, ClaimedJob]:
    """Start the next run of each job that is queued; by claim id, as two messages may bring the same job.

    Absent: the job is not queued, or another claim of the group has it.
    """
    ordered = sorted(jobs, key=attrgetter("job_id"))
    asked = {"job_ids": [job.job_id for job in ordered], "claim_ids": [job.claim_id for job in ordered]}
    terms = {"task_ids": [job.task_id for job in ordered], "worker": worker, "lease_seconds": lease_seconds}
    claims = _read_claims(await fetch(connection, _CLAIM, asked | terms))
    if len(claims) < len(ordered):
        claims |= _read_claims(await fetch(connection, _FIND_CLAIMS, asked))
    return claims


def _read_claims(rows: Iterable[Any]) -> dict[UUID, ClaimedJob]:
    return {claim_id: ClaimedJob(*claimed) for *claimed, claim_id in rows}


async def read_messages(connection: AsyncConnection, job_ids: Sequence[UUID]) -> dict[UUID, Message]:
    """What was asked, of those of the jobs that are the connection's tenant's."""
    rows = await fetch(connection, _READ_MESSAGES, {"job_ids": list(job_ids)})
    return {job_id: Message.model_validate_json(body) for job_id, body in rows if body is not None}
