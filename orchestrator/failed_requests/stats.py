"""How much of what failed is in which state, and for how long; for people who look. Reads every row it counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_pool.client.failed_requests import AGE_BOUNDS_SECONDS, Age, QueueStats, State
from orchestrator.failed_requests.drains import CALLS, JOBS, DrainedTable


@dataclass(frozen=True, slots=True)
class StateCount:
    """Those in one state, and of one age."""

    state: State
    age: Age
    number: int
    oldest_seconds: float
    """Since the first of them failed for the first time."""


_COUNT = Template(
    """
    select state, case $ages else 'older' end as age, count(*) as number, max(age) as oldest_seconds
    from (select state, extract(epoch from now() - created_at)::double precision as age from $table) counted
    group by 1, 2
    """
)
_AGES: Final = " ".join(f"when age < {seconds} then '{name}'" for name, seconds in AGE_BOUNDS_SECONDS.items())
_STATS: Final = {of.queue: text(_COUNT.substitute(table=of.table, ages=_AGES)) for of in (JOBS, CALLS)}


async def read_stats(connection: AsyncConnection, *tables: DrainedTable) -> list[StateCount]:
    """Of all tenants; needs the system role."""
    rows = [row for of in tables for row in await connection.execute(_STATS[of.queue])]
    return [StateCount(row.state, row.age, row.number, row.oldest_seconds) for row in rows]


def as_queue_stats(counts: Sequence[StateCount]) -> QueueStats:
    """As the library's clients see them."""
    by_state: Counter[State] = Counter()
    by_age: Counter[Age] = Counter()
    parked = [count for count in counts if count.state == "parked"]
    for count in counts:
        by_state[count.state] += count.number
    for count in parked:
        by_age[count.age] += count.number
    return QueueStats(dict(by_state), max((count.oldest_seconds for count in parked), default=None), dict(by_age))
