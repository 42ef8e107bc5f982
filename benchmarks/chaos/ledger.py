"""The ledger as the checker sees it. Every table name the bench knows stands here."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

JOBS: Final = """
select message_id, jobs.id::text as job_id, jobs.state, jobs.crash_count,
       (select count(*) from runs where runs.job_id = jobs.id) as runs,
       (select coalesce(sum(greatest(1, (select count(*) from attempts
                                         where attempts.job_id = runs.job_id and attempts.run = runs.number))), 0)
        from runs where runs.job_id = jobs.id)::bigint as calls_on_record,
       (select count(*) from runs where runs.job_id = jobs.id and outcome in ('crashed', 'expired')) as crashed_runs,
       (select count(*) from runs where runs.job_id = jobs.id and outcome = 'stale') as stale_runs,
       (select count(*) from results where results.job_id = jobs.id) as results,
       (select run from results where results.job_id = jobs.id) as answering_run,
       (select body->>'content' from results where results.job_id = jobs.id) as content,
       (select coalesce(sum(cost_usd), 0) from attempts where attempts.job_id = jobs.id) as cost_usd
from jobs join messages on messages.job_id = jobs.id
"""
# Of messages whose id begins with $1.
RUNNING: Final = """
select count(*) from jobs join messages on job_id = jobs.id where state = 'running' and starts_with(message_id, $1)
"""
QUEUED: Final = """
select count(*) from jobs join messages on job_id = jobs.id where state = 'queued' and starts_with(message_id, $1)
"""
LATE: Final = """
select count(*) from attempts join runs on runs.job_id = attempts.job_id and number = attempts.run
join messages on messages.job_id = runs.job_id where outcome in ('expired', 'stale') and starts_with(message_id, $1)
"""
RECLAIMED: Final = """
select count(*) from runs first join runs second on second.job_id = first.job_id and second.number = 2
join messages on messages.job_id = first.job_id
where first.number = 1 and first.worker = second.worker and starts_with(message_id, $1)
"""
ANSWERED_BY_SECOND_RUN: Final = """
select count(*) from results join messages using (job_id) where run = 2 and starts_with(message_id, $1)
"""
ANSWERED: Final = "select count(*) from results join messages using (job_id) where starts_with(message_id, $1)"
ANSWERED_BETWEEN: Final = """
select count(*) from results where extract(epoch from created_at) between $1::float8 and $2::float8
"""
WORKERS: Final = (
    "select count(distinct worker) from runs join messages using (job_id) where starts_with(message_id, $1)"
)
OPEN: Final = "select count(*) from jobs where finished_at is null"
EXPIRED: Final = "select count(*) from runs where outcome = 'expired'"
WORKING_SINCE: Final = """
select worker, extract(epoch from min(started_at) - $1)::double precision as seconds
from runs where started_at > $1 group by worker
"""
STANDING_STILL: Final = "select count(*) from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock'"
"""Connections of application $1 that wait for any lock."""

STANDING_BEFORE: Final = "select count(*) from pg_locks where not granted and relation = $1::text::regclass"
"""Connections that wait for a lock on table $1."""


@dataclass(frozen=True, slots=True)
class LedgerJob:
    """A job as it stands at the end."""

    message_id: str
    job_id: str
    state: str
    crash_count: int
    runs: int
    calls_on_record: int
    """Of each run its attempts, and one where it died before it could write them down."""
    crashed_runs: int
    """Runs that ended without an outcome: their process was seen to die, or was not heard of again."""
    stale_runs: int
    """Runs that came back after another had taken over."""
    results: int
    answering_run: int | None
    content: str | None
    """What the poller gets."""
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class Reply:
    """What stands in Celery's result backend for one task."""

    task_id: str
    state: str
    content: str | None


def build_jobs(rows: list[Any]) -> list[LedgerJob]:
    return [LedgerJob(**dict(row)) for row in rows]
