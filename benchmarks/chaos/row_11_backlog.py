"""Row 11: a million jobs wait, half of them queued and half parked, and nothing gets slower.

Rows are written straight into the ledger (1,000 tenants, 10 model groups), and its own statements are timed: claiming
one queued job, and all that one sweep of beat's does, together: what got stuck, a drain pass over what is parked, what
waited too long, and the batches' feed. Each figure is taken at 10,000 rows and at the full number, in one run on one
machine. Of three rounds of claims the best counts, as noise only ever adds. What it does not show is the broker: how
long the sending of what a sweep found takes, and a million messages, which jobs that wait in the ledger do not need.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
import psutil
from uuid_utils.compat import uuid7

from benchmarks.chaos.bench import Bench, Finding, Row, list_faults
from orchestrator.batches.feeding import feed
from orchestrator.failed_requests import drains
from orchestrator.failed_requests.replay import discard_expired, release_due
from orchestrator.jobs import claims
from orchestrator.jobs.claims import WaitingJob
from orchestrator.reconcile import reconcile
from shared.database import Database, create_engine

FEW: Final = 10_000
CLAIMS: Final = 500
ROUNDS: Final = 3
SWEEPS: Final = 20
LONGEST_SWEEP_SECONDS: Final = 0.1
PARKED_EXPIRES_SECONDS: Final = 7 * 86_400.0
"""As shipped; nothing of the backlog is that old."""
MOST_GROWTH_MB: Final = 20.0

TENANTS = (
    "insert into tenants (id, name, default_agent_id) select 't' || n, 't' || n, 'robin' from generate_series(0, 999) n"
)
# Even numbers queued, odd ones parked; parked an hour ago, due at various times up to an hour ahead.
JOBS = """
insert into jobs (id, tenant_id, task_id, state, created_at, dispatched_at)
select gen_random_uuid(), 't' || n % 1000, 'task-' || n, case n % 2 when 0 then 'queued' else 'parked' end,
       now() - interval '2 hours', now() - n * interval '10 microseconds'
from generate_series($1::int, $2::int) n
"""
MESSAGES = """
insert into messages (job_id, tenant_id, message_id, body)
select id, tenant_id, id::text, jsonb_build_object('id', id, 'tenant_id', tenant_id, 'channel', 'api', 'sender', 's',
       'content', repeat('what is it? ', 20), 'timestamp', '2026-01-01T00:00:00Z')
from jobs where not exists (select from messages where job_id = jobs.id)
"""
FAILED_REQUESTS = """
insert into failed_requests (id, tenant_id, job_id, model, state, parks, next_try_at, error_type, error_message,
                             created_at)
select gen_random_uuid(), tenant_id, id, 'model-' || get_byte(uuid_send(id), 0) % 10, 'parked', 1,
       now() + (random() * 2 - 1) * interval '1 hour', 'LLMUnavailableError', 'down', now() - interval '1 hour'
from jobs where state = 'parked' and not exists (select from failed_requests where job_id = jobs.id)
"""
QUEUED = "select id, task_id from jobs where state = 'queued' order by id limit 20000"


@dataclass(frozen=True, slots=True)
class Figures:
    """At one size of the backlog."""

    claim_p99_seconds: float
    sweep_seconds: float
    """The longest of all sweeps, each whole."""
    growth_mb: float
    """Of this process's memory while it claimed and swept."""


def run(bench: Bench) -> Finding:
    number = bench.choose(100_000, 1_000_000)
    with bench.open_yard() as yard:
        few, many = asyncio.run(measure_both(yard.database_url, number, bench.random))
    ratio = many.claim_p99_seconds / few.claim_p99_seconds
    notes = (
        f"{number:,} rows: claim p99 {many.claim_p99_seconds * 1000:.1f} ms, {ratio:.2f} times that at {FEW:,}; "
        f"longest sweep {many.sweep_seconds * 1000:.0f} ms ({few.sweep_seconds * 1000:.0f}); "
        f"memory +{many.growth_mb:.1f} MB"
    )
    missed = {
        "a claim takes more than twice as long": ratio > 2,
        "a sweep takes longer than 100 ms": many.sweep_seconds > LONGEST_SWEEP_SECONDS,
    }
    wrong = list_faults({"memory grows": many.growth_mb > MOST_GROWTH_MB})
    return Finding(None, notes, wrong=wrong, missed=list_faults(missed))


async def measure_both(url: str, number: int, chance: random.Random) -> tuple[Figures, Figures]:
    engine = create_engine(url)
    database, owner = Database(engine, engine), await asyncpg.connect(url)
    try:
        await owner.execute(TENANTS)
        await fill(owner, 1, FEW)
        few = await measure(database, owner, chance)
        await fill(owner, FEW + 1, number)
        return few, await measure(database, owner, chance)
    finally:
        await owner.close()
        await database.aclose()


async def fill(owner: asyncpg.Connection, first: int, last: int) -> None:
    await owner.execute(JOBS, first, last, timeout=600)
    for statement in (MESSAGES, FAILED_REQUESTS, "vacuum analyze"):
        await owner.execute(statement, timeout=600)


async def measure(database: Database, owner: asyncpg.Connection, chance: random.Random) -> Figures:
    queued = await owner.fetch(QUEUED)
    sampled = chance.sample(queued, min(len(queued), CLAIMS * ROUNDS))
    backlog = await owner.fetchval("select count(*) from jobs where state = 'queued'")
    await sweep(database, backlog)
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    rounds = [await time_claims(database, sampled[start::ROUNDS]) for start in range(ROUNDS)]
    sweeps = [await sweep(database, backlog) for _ in range(SWEEPS)]
    return Figures(min(rounds), max(sweeps), (process.memory_info().rss - before) / 2**20)


async def time_claims(database: Database, rows: Sequence[Any]) -> float:
    """The 99th percentile, in seconds."""
    times = sorted([await time_it(lambda row=row: claim(database, row["id"], row["task_id"])) for row in rows])
    return times[int(len(times) * 0.99)]


async def claim(database: Database, job_id: UUID, task_id: str) -> None:
    waiting = WaitingJob(job_id, task_id, uuid7())
    async with database.as_system() as connection:
        assert await claims.claim_known(connection, [waiting], "bench", 3600), "every sampled job is queued"


async def sweep(database: Database, backlog: int) -> float:
    """All that one asks of the ledger, in seconds."""
    return await time_it(lambda: look_after_all(database, backlog))


async def look_after_all(database: Database, backlog: int) -> None:
    async with database.as_system() as connection:
        assert await drains.is_anything_open(connection), "half of the jobs are parked"
    await release_due(database)
    await discard_expired(database, expires_seconds=PARKED_EXPIRES_SECONDS)
    await reconcile(database, lease_seconds=3600, backlog=backlog)
    await feed(database, backlog=0)


async def time_it(operation: Callable[[], Awaitable[object]]) -> float:
    started_at = time.perf_counter()
    await operation()
    return time.perf_counter() - started_at


ROW = Row(11, "a million jobs queued and parked", run)
