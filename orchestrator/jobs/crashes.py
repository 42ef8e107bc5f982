"""Runs that are known to have ended without an outcome, before their lease tells: counted at once, with last words.

What a sweep does to a run that was not heard of again, this does to one whose process was seen to die.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.jobs.lifecycle import MAX_CRASHES, JobState
from orchestrator.jobs.store import Claim
from orchestrator.jobs.sweeps import Expired

NOT_HEARD_OF: Final = "was not heard of again"
_LONGEST_WORDS: Final = 500


@dataclass(frozen=True, slots=True)
class CrashedRun:
    """Evidence against a job."""

    number: int
    last_words: str


_RECORD = text(
    """
    with job as (
        update jobs
        set state = case when crash_count + 1 >= :max_crashes then 'quarantined' else 'queued' end,
            finished_at = case when crash_count + 1 >= :max_crashes then now() end,
            crash_count = crash_count + 1, dispatched_at = now()
        where id = :job_id and run = :run and state = 'running'
        returning id, tenant_id, task_id, state, run, crash_count
    ),
    lease as (delete from leases using job where job_id = job.id and leases.run = job.run),
    ended_run as (
        update runs set ended_at = now(), outcome = 'crashed', error_message = :last_words from job
        where job_id = job.id and number = job.run and ended_at is null
    )
    select * from job
    """
)

_NOTE = text(
    """
    update runs set error_type = :error_type, error_message = :error_message
    where job_id = :job_id and number = :run and ended_at is null
    """
)

_FIND = text(
    """
    select number, coalesce(error_type || ': ', '') || coalesce(error_message, :not_heard_of) as last_words
    from runs where job_id = :job_id and outcome in ('crashed', 'expired') order by number
    """
)


async def record(connection: AsyncConnection, claimed: Claim, last_words: str) -> Expired | None:
    """Queue a job again whose run crashed, or quarantine it; None when the run no longer owned it."""
    parameters = {
        "job_id": claimed.job_id,
        "run": claimed.run,
        "last_words": last_words[:_LONGEST_WORDS],
        "max_crashes": MAX_CRASHES,
    }
    row = (await connection.execute(_RECORD, parameters)).one_or_none()
    if row is None:
        return None
    return Expired(row.id, row.tenant_id, row.task_id, JobState(row.state), row.run, row.crash_count)


async def note(connection: AsyncConnection, claimed: Claim, error_type: str, error_message: str) -> None:
    """Keep what was seen of a run that goes on to be one not heard of again."""
    parameters = {
        "job_id": claimed.job_id,
        "run": claimed.run,
        "error_type": error_type,
        "error_message": error_message[:_LONGEST_WORDS],
    }
    await connection.execute(_NOTE, parameters)


async def find_crashed_runs(connection: AsyncConnection, job_id: UUID) -> tuple[CrashedRun, ...]:
    """In the order they were made."""
    rows = await connection.execute(_FIND, {"job_id": job_id, "not_heard_of": NOT_HEARD_OF})
    return tuple(CrashedRun(row.number, row.last_words) for row in rows)
