"""What the ledger itself costs a job, by how many are claimed and ended together: `python -m benchmarks.ledger_cost`.

No broker, no worker, no model: one process claims jobs and records an answer with one attempt for each, group by group,
on a Postgres of its own that keeps what it commits. Processor time is the kernel's count, over all of Postgres; of
several rounds the best counts, as noise only ever adds. The rows of a table compare with each other, not with another
machine's.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import psutil
from uuid_utils.compat import uuid7

from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.jobs import claims, endings
from orchestrator.jobs.claims import ClaimedJob, NewJob, WaitingJob
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.messages import Message, parse_message
from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.embedded_postgres import prepare_postgres
from orchestrator.stack.supervisor import Supervisor
from shared import migrations
from shared.attempts import Attempt, Usage
from shared.database import Database, create_engine

TENANT: Final = "default"
LEASE_SECONDS: Final = 3600.0
RESULT: Final = {"content": "Paris is the capital of France. " * 6, "model": "m", "usage": {"prompt_tokens": 60}}
QUEUE_JOBS: Final = """
insert into jobs (id, tenant_id, task_id, state) select id, $2, id::text, 'queued' from unnest($1::uuid[]) id
"""
QUEUE_MESSAGES: Final = """
insert into messages (job_id, tenant_id, message_id, body)
select id, $2, id::text, body::jsonb from unnest($1::uuid[], $3::text[]) as new (id, body)
"""
# Only what writes has such a number: nothing else is waited for at its commit. The statistics would come a second late.
TRANSACTIONS: Final = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
UPDATES: Final = """
select relname, n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname in ('jobs', 'runs') order by relname
"""

Step = Callable[[Sequence[Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cost:
    """A job's."""

    postgres_us: float
    """Processor time of all its processes."""
    python_us: float
    """Processor time of the process that claims and records."""
    commits: float
    wal_bytes: float

    def best(self, other: "Cost") -> "Cost":
        return Cost(*(min(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)))


class Ledger:
    """Claims and ends jobs as a worker does, each group in two transactions."""

    def __init__(self, database: Database, owner: asyncpg.Connection) -> None:
        self._database = database
        self._owner = owner

    async def take_in(self, messages: Sequence[Message]) -> None:
        """Messages that are no jobs yet, to their answers."""
        new = [NewJob(uuid7(), message, message.id, claim_id=uuid7()) for message in messages]
        async with self._database.as_system() as connection:
            taken = await claims.claim_new(connection, new, "bench", LEASE_SECONDS)
        await self._end(list(taken.claimed.values()), len(messages))

    async def take_up(self, job_ids: Sequence[UUID]) -> None:
        """Jobs that are queued, as those of a slice, to their answers."""
        waiting = [WaitingJob(job_id, str(job_id), claim_id=uuid7()) for job_id in job_ids]
        async with self._database.as_system() as connection:
            claimed = await claims.claim_known(connection, waiting, "bench", LEASE_SECONDS)
        async with self._database.as_tenant(TENANT) as connection:
            assert len(await claims.read_messages(connection, job_ids)) == len(job_ids)
        await self._end(list(claimed.values()), len(job_ids))

    async def queue(self, number: int) -> list[UUID]:
        """As many jobs that wait; not part of what is measured."""
        job_ids = [uuid7() for _ in range(number)]
        bodies = [build_message().model_dump_json() for _ in job_ids]
        await self._owner.execute(QUEUE_JOBS, job_ids, TENANT)
        await self._owner.execute(QUEUE_MESSAGES, job_ids, TENANT, bodies)
        return job_ids

    async def _end(self, claimed: Sequence[ClaimedJob], expected: int) -> None:
        ended = [(run, build_ending()) for run in claimed]
        async with self._database.as_system() as connection:
            counted = await endings.record_all(connection, ended)
        assert len(counted) == expected, "nobody else has these jobs"


class Meter:
    """Reads what has been spent."""

    def __init__(self, owner: asyncpg.Connection, postmaster: psutil.Process) -> None:
        self._owner = owner
        self._postmaster = postmaster

    async def measure(self, step: Step, items: Sequence[Any], group: int) -> Cost:
        postgres, commits, wal = self._read_processes(), await self._read_commits(), await self._read_wal()
        python = time.process_time()
        for start in range(0, len(items), group):
            await step(items[start : start + group])
        python = time.process_time() - python
        spent = sum(seconds - postgres.get(pid, 0.0) for pid, seconds in self._read_processes().items())
        written, committed = await self._read_wal() - wal, await self._read_commits() - commits
        number = len(items)
        return Cost(spent / number * 1e6, python / number * 1e6, committed / number, written / number)

    def _read_processes(self) -> dict[int, float]:
        processes = (self._postmaster, *self._postmaster.children())
        return {process.pid: sum(process.cpu_times()[:2]) for process in processes}

    async def _read_commits(self) -> int:
        return int(await self._owner.fetchval(TRANSACTIONS))

    async def _read_wal(self) -> int:
        return int(await self._owner.fetchval("select pg_current_wal_insert_lsn() - '0/0'"))


def main() -> None:
    options = read_options()
    with serve_postgres() as (url, postmaster):
        asyncio.run(compare(url, postmaster, options))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="a round; a tenth of it where each job is alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--sql", default="select 1", help="is done first, to see what a key or an index costs")
    return parser.parse_args()


async def compare(url: str, postmaster: psutil.Process, options: argparse.Namespace) -> None:
    async with open_ledger(url) as (ledger, owner):
        await owner.execute(options.sql)
        meter = Meter(owner, postmaster)
        print("| jobs | in groups of | Postgres, µs a job | Python, µs a job | commits a job | WAL bytes a job |")
        print("|---|---|---|---|---|---|")
        for group in options.groups:
            number = options.jobs if group > 1 else options.jobs // 10
            rounds = [await measure_round(ledger, meter, group, number) for _ in range(options.rounds + 1)]
            for kind in rounds[0]:
                _, first, *others = (costs[kind] for costs in rounds)
                print(describe(kind, group, pick_best(first, others)))
        for row in await owner.fetch(UPDATES):
            print(f"{row['relname']}: {row['n_tup_upd']} updates, {row['n_tup_hot_upd']} of them heap-only")


async def measure_round(ledger: Ledger, meter: Meter, group: int, number: int) -> dict[str, Cost]:
    """Both kinds in turn; the first round of all is not counted, as plans are made in it."""
    messages, job_ids = [build_message() for _ in range(number)], await ledger.queue(number)
    return {
        "new, as messages": await meter.measure(ledger.take_in, messages, group),
        "queued, as a slice": await meter.measure(ledger.take_up, job_ids, group),
    }


def pick_best(first: Cost, others: Sequence[Cost]) -> Cost:
    for cost in others:
        first = first.best(cost)
    return first


def describe(kind: str, group: int, cost: Cost) -> str:
    figures = f"{cost.postgres_us:.0f} | {cost.python_us:.0f} | {cost.commits:.2f} | {cost.wal_bytes:.0f}"
    return f"| {kind} | {group} | {figures} |"


def build_message() -> Message:
    raw = {"id": str(uuid7()), "channel": "api", "sender": "bench", "timestamp": "2026-01-01T12:00:00Z"}
    return parse_message({**raw, "content": "What is the capital of France? " * 8})


def build_ending() -> Ending:
    attempt = Attempt("d", "mock", "m", datetime.now(UTC), 0.25, Usage(60, 40), cost_usd=Decimal("0.00012"))
    return Ending(JobState.SUCCEEDED, "succeeded", RESULT, attempts=(attempt,))


@contextmanager
def serve_postgres() -> Iterator[tuple[str, psutil.Process]]:
    with tempfile.TemporaryDirectory(prefix="llmyard-ledger-") as name:
        directory = make_data_directory(Path(name))
        postgres, supervisor = prepare_postgres(directory / "postgres", print), Supervisor(directory, say=print)
        try:
            supervisor.start(postgres.child())
            migrations.upgrade(postgres.url)
            children = psutil.Process().children()
            yield postgres.url, next(child for child in children if child.name() == "postgres")
        finally:
            supervisor.stop()


@asynccontextmanager
async def open_ledger(url: str) -> AsyncIterator[tuple[Ledger, asyncpg.Connection]]:
    engine = create_engine(url)
    database, owner = Database(engine, engine), await asyncpg.connect(url)
    try:
        await ensure_default_tenant(database)
        yield Ledger(database, owner), owner
    finally:
        await owner.close()
        await database.aclose()


if __name__ == "__main__":
    main()
