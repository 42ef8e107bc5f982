"""Reads what stands in the database. Every table name the bench knows stands here."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from benchmarks.batches.checker import Ledger
from orchestrator.batches.ids import read_line

STATES: Final = "select state, count(*) from jobs group by state"
RESULTS: Final = "select count(*) from results"
WITHOUT_RESULT: Final = (
    "select count(*) from jobs where not exists (select from results where results.job_id = jobs.id)"
)
LEASES: Final = "select count(*) from leases"
OUTCOMES: Final = "select coalesce(outcome, 'under way'), count(*) from runs group by outcome"
CALLS_ON_RECORD: Final = """
select runs.job_id, sum(greatest(1, tries))::bigint
from runs left join (select job_id, run, count(*) as tries from attempts group by job_id, run) as made
    on made.job_id = runs.job_id and made.run = runs.number
group by runs.job_id having sum(greatest(1, tries)) > 1
"""
WORKING: Final = "select count(*) from workers where not is_stopping"
MOMENTS: Final = """
select extract(epoch from (select max(created_at) from jobs))::double precision,
       extract(epoch from (select max(created_at) from results))::double precision
"""


@dataclass(frozen=True, slots=True)
class Moments:
    """By the machine's clock, in seconds since 1970."""

    taken_in_at: float
    """The last line of the input."""
    answered_at: float
    """The last line that was."""


def read_ledger(url: str) -> Ledger:
    states, outcomes, calls = (fetch(url, query) for query in (STATES, OUTCOMES, CALLS_ON_RECORD))
    return Ledger(
        states=dict(map(tuple, states)),
        results=fetch_count(url, RESULTS),
        without_result=fetch_count(url, WITHOUT_RESULT),
        leases=fetch_count(url, LEASES),
        outcomes=dict(map(tuple, outcomes)),
        calls_on_record={read_line(job_id): times for job_id, times in calls},
    )


def read_moments(url: str) -> Moments:
    return Moments(*fetch(url, MOMENTS)[0])


def count_answered(url: str) -> int:
    return fetch_count(url, RESULTS)


def count_working(url: str) -> int:
    """Workers that have come up."""
    return fetch_count(url, WORKING)


def fetch_count(url: str, query: str) -> int:
    return int(fetch(url, query)[0][0])


def fetch(url: str, query: str) -> Sequence[Any]:
    return asyncio.run(fetch_rows(url, query))


async def fetch_rows(url: str, query: str) -> Sequence[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()
