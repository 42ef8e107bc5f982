"""How a run ends, and how a job is cancelled: each a compare-and-swap that one side alone can win.

An outcome counts only while the job is `running` under the run's own number. Every statement leaves run row, lease,
result and state in step, and each may be repeated when its reply was lost.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs.lifecycle import MAX_CRASHES, JobState
from orchestrator.jobs.statements import fetch, plan_once
from shared.attempts import Attempt


class Run(Protocol):
    """A claim, with or without its message."""

    @property
    def job_id(self) -> UUID: ...

    @property
    def tenant_id(self) -> str: ...

    @property
    def run(self) -> int:
        """The fencing token."""


@dataclass(frozen=True, slots=True)
class NewResult:
    """The result of a job that another statement ended."""

    job_id: UUID
    tenant_id: str
    run: int
    result: dict[str, Any]
    """What the poller gets; JSON."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends, and the state it leaves its job in."""

    state: JobState
    outcome: str
    result: dict[str, Any] | None = None
    error_type: str | None = None
    error_message: str | None = None
    attempts: Sequence[Attempt] = ()


# A sweep may take a run for dead while this waits for its job's lock: what is looked for then is true before and after,
# as the rest of the statement goes on seeing the tables as they were. For `any (array[…])` see `claims._CLAIM`.
_RECORD = text(
    """
    with ended as materialized (
        select * from unnest(
            cast(:job_ids as uuid[]), cast(:runs as integer[]), cast(:tenant_ids as text[]), cast(:states as text[]),
            cast(:are_final as boolean[]), cast(:outcomes as text[]), cast(:results as text[]),
            cast(:error_types as text[]), cast(:error_messages as text[])
        ) as ended (job_id, run, tenant_id, state, is_final, outcome, result, error_type, error_message)
    ),
    job as (
        update jobs set state = ended.state, dispatched_at = now(), finished_at = case when is_final then now() end
        from ended where id = any (array[ended.job_id]) and jobs.run = ended.run and jobs.state = 'running'
        returning ended.*
    ),
    stale as materialized (select * from ended where job_id not in (select job_id from job)),
    lease as (
        delete from leases using ended where leases.job_id = any (array[ended.job_id]) and leases.run = ended.run
    ),
    ended_run as (
        update runs set ended_at = now(), outcome = job.outcome,
                        error_type = job.error_type, error_message = job.error_message
        from job where runs.job_id = any (array[job.job_id]) and number = any (array[job.run])
    ),
    late_run as (
        update runs set ended_at = now(), outcome = 'stale',
                        error_type = stale.error_type, error_message = stale.error_message
        from stale where runs.job_id = any (array[stale.job_id]) and number = any (array[stale.run])
                     and (ended_at is null or runs.outcome = 'expired')
        returning runs.job_id
    ),
    pardon as (
        update jobs set crash_count = greatest(crash_count - 1, 0) from late_run
        where id = any (array[late_run.job_id]) and finished_at is null
          and (select count(*) from runs where runs.job_id = id and outcome = 'stale') < cast(:most_pardons as integer)
    ),
    paid as (
        insert into attempts (job_id, run, tenant_id, position, deployment, provider, model, started_at,
                              latency_seconds, prompt_tokens, completion_tokens, error_type, error_message,
                              cost_usd)
        select * from unnest(
            cast(:paid_job_ids as uuid[]), cast(:paid_runs as integer[]), cast(:paid_tenant_ids as text[]),
            cast(:positions as integer[]), cast(:deployments as text[]), cast(:providers as text[]),
            cast(:models as text[]), cast(:started_at as timestamptz[]), cast(:latencies as double precision[]),
            cast(:prompt_tokens as integer[]), cast(:completion_tokens as integer[]),
            cast(:paid_error_types as text[]), cast(:paid_error_messages as text[]), cast(:costs as numeric[])
        )
        on conflict (job_id, run, position) do nothing
    ),
    answer as (
        insert into results (job_id, tenant_id, run, body)
        select job_id, tenant_id, run, cast(result as jsonb) from job where is_final
    )
    select job_id, run from job
    """
)

# In a statement of its own: one that waited for the lock would not see the run and the lease that a claim just made.
_LOCK = text("select from jobs where id = :job_id for update")

_CANCEL = text(
    """
    with job as (
        update jobs set state = 'cancelled', finished_at = now() where id = :job_id and finished_at is null
        returning id, tenant_id, run, finished_at
    ),
    ended_run as (
        update runs set ended_at = now(), outcome = 'cancelled' from job where job_id = job.id and ended_at is null
    ),
    lease as (delete from leases using job where job_id = job.id),
    answer as (insert into results (job_id, tenant_id, run, body) select id, tenant_id, run, :result from job)
    select finished_at from job
    """
).bindparams(bindparam("result", type_=JSONB))

_ADD_RESULT = text(
    "insert into results (job_id, tenant_id, run, body) values (:job_id, :tenant_id, :run, :result)"
).bindparams(bindparam("result", type_=JSONB))


async def record(connection: AsyncConnection, claimed: Run, ending: Ending) -> bool:
    """Write down how a run ended; False when it no longer owned the job. What it paid is kept either way."""
    await plan_once(connection)
    return bool(await record_all(connection, [(claimed, ending)]))


async def record_all(connection: AsyncConnection, ended: Sequence[tuple[Run, Ending]]) -> frozenset[tuple[UUID, int]]:
    """Likewise many runs, of whatever tenants; returns job and run of those that owned their job.

    Needs one statement where no job has more than one run among them; the transaction is to be begun with `PLAN_ONCE`.
    """
    counted: set[tuple[UUID, int]] = set()
    for group in _split(ended):
        counted.update(map(tuple, await fetch(connection, _RECORD, _build_parameters(group))))
    return frozenset(counted)


def _split(ended: Sequence[tuple[Run, Ending]]) -> Iterator[Sequence[tuple[Run, Ending]]]:
    """Groups in the order in which jobs are locked, each job once in each: a statement changes a row but once."""
    ordered = sorted(ended, key=lambda each: (each[0].job_id, each[0].run))
    groups: list[list[tuple[Run, Ending]]] = []
    seen: dict[UUID, int] = {}
    for each in ordered:
        number = seen.get(each[0].job_id, 0)
        if number == len(groups):
            groups.append([])
        groups[number].append(each)
        seen[each[0].job_id] = number + 1
    return iter(groups)


def _build_parameters(ended: Sequence[tuple[Run, Ending]]) -> dict[str, Any]:
    endings = [ending for _, ending in ended]
    return {
        **_build_paid(ended),
        "job_ids": [run.job_id for run, _ in ended],
        "runs": [run.run for run, _ in ended],
        "tenant_ids": [run.tenant_id for run, _ in ended],
        "states": [ending.state for ending in endings],
        "are_final": [ending.state.is_final for ending in endings],
        "outcomes": [ending.outcome for ending in endings],
        "results": [None if ending.result is None else _write(ending.result) for ending in endings],
        "error_types": [ending.error_type for ending in endings],
        "error_messages": [ending.error_message for ending in endings],
        "most_pardons": MAX_CRASHES,
    }


def _write(result: dict[str, Any]) -> str:
    try:
        return to_json(result).decode()
    except PydanticSerializationError:
        # Half of a surrogate pair: so the database refuses it, and its neighbours are spared.
        return json.dumps(result)


def _build_paid(ended: Sequence[tuple[Run, Ending]]) -> dict[str, Any]:
    paid = [
        (run, position, attempt) for run, ending in ended for position, attempt in enumerate(ending.attempts, start=1)
    ]
    attempts = [attempt for _, _, attempt in paid]
    return {
        "paid_job_ids": [run.job_id for run, _, _ in paid],
        "paid_runs": [run.run for run, _, _ in paid],
        "paid_tenant_ids": [run.tenant_id for run, _, _ in paid],
        "positions": [position for _, position, _ in paid],
        "deployments": [attempt.deployment for attempt in attempts],
        "providers": [attempt.provider for attempt in attempts],
        "models": [attempt.model for attempt in attempts],
        "started_at": [attempt.started_at for attempt in attempts],
        "latencies": [attempt.latency_seconds for attempt in attempts],
        "prompt_tokens": [attempt.usage and attempt.usage.prompt_tokens for attempt in attempts],
        "completion_tokens": [attempt.usage and attempt.usage.completion_tokens for attempt in attempts],
        "paid_error_types": [attempt.error_type for attempt in attempts],
        "paid_error_messages": [attempt.error_message for attempt in attempts],
        "costs": [attempt.cost_usd for attempt in attempts],
    }


async def cancel(connection: AsyncConnection, job_id: UUID, result: dict[str, Any]) -> datetime | None:
    """End a job that is not finished, whatever it is doing, so that a run in hand can no longer answer.

    Returns the moment; None when it was finished already.
    """
    await connection.execute(_LOCK, {"job_id": job_id})
    found = await connection.scalar(_CANCEL, {"job_id": job_id, "result": result})
    return found if isinstance(found, datetime) else None


async def add_results(connection: AsyncConnection, results: Sequence[NewResult]) -> None:
    """What pollers get of jobs that were ended here and now by no run of theirs."""
    await connection.execute(_ADD_RESULT, [asdict(result) for result in results])
