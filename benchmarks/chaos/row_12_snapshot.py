"""Row 12: a transaction keeps its snapshot for minutes while jobs go through, so that no dead row can be removed.

Jobs are taken in, claimed and completed by the ledger's own statements as fast as one process can, with a sweep every
five seconds; without the model and the broker the ledger is all there is to slow down. Two fresh databases get the same
load for the same time, one of them with the snapshot held, and the rates over the last third are compared: tables that
grow cost something by themselves. How many jobs a second it is depends on the machine, and is told.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import asyncpg
from uuid_utils.compat import uuid7

from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.yard import build_message
from orchestrator.failed_requests.replay import release_due
from orchestrator.jobs import endings
from orchestrator.jobs.claims import NewJob, claim_new
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.messages import parse_message
from orchestrator.reconcile import reconcile
from shared.database import Database, create_engine

AT_ONCE: Final = 8
WARM_UP_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 5.0
LEAST_SHARE: Final = 0.9
MOST_DEAD_PER_JOB: Final = 4.0
"""A job that is claimed and ended leaves one each of `jobs`, `runs` and `leases`; and each sweep a few."""
ANSWER = Ending(JobState.SUCCEEDED, "succeeded", {"content": "fine"})
DEAD = "select coalesce(sum(n_dead_tup), 0) from pg_stat_user_tables"


@dataclass
class Load:
    """Jobs from their row to their result, over and over."""

    database: Database
    done: int = 0
    longest_sweep_seconds: float = 0.0

    async def run(self, seconds: float) -> float:
        """Jobs a second."""
        before, started_at = self.done, time.monotonic()
        deadline = started_at + seconds
        await asyncio.gather(self._sweep(deadline), *(self._work(deadline) for _ in range(AT_ONCE)))
        return (self.done - before) / (time.monotonic() - started_at)

    async def _work(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            new = NewJob(uuid7(), parse_message(build_message(str(uuid7()))), str(uuid4()), claim_id=uuid7())
            async with self.database.as_system() as connection:
                claims = await claim_new(connection, [new], "bench", lease_seconds=30)
            async with self.database.as_system() as connection:
                assert await endings.record(connection, claims.claimed[new.job_id], ANSWER), "nobody else ends it"
            self.done += 1

    async def _sweep(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            started_at = time.monotonic()
            await reconcile(self.database, lease_seconds=30, backlog=0)
            await release_due(self.database)
            self.longest_sweep_seconds = max(self.longest_sweep_seconds, time.monotonic() - started_at)
            await asyncio.sleep(max(0.0, min(SWEEP_SECONDS, deadline - time.monotonic())))


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one database."""

    rate: float
    """Jobs a second over the last third of the time, when a snapshot hurts most."""
    dead_per_job: float
    longest_sweep_seconds: float


def run(bench: Bench) -> Finding:
    seconds = bench.choose(30, 600)
    free, held = (measure_in_a_yard(bench, seconds, is_held=is_held) for is_held in (False, True))
    share = held.rate / free.rate
    notes = (
        f"snapshot held for {seconds} s: {held.rate:.0f} jobs/s, {share:.0%} of {free.rate:.0f} without; "
        f"{held.dead_per_job:.1f} dead rows a job; longest pair of sweeps {held.longest_sweep_seconds * 1000:.0f} ms"
    )
    wrong = ("dead rows without bound",) if held.dead_per_job > MOST_DEAD_PER_JOB else ()
    return Finding(None, notes, wrong=wrong, missed=("slower by more than a tenth",) if share < LEAST_SHARE else ())


def measure_in_a_yard(bench: Bench, seconds: float, *, is_held: bool) -> Figures:
    with bench.open_yard() as yard:
        return asyncio.run(measure(yard.database_url, seconds, is_held=is_held))


async def measure(url: str, seconds: float, *, is_held: bool) -> Figures:
    engine = create_engine(url, pool_size=AT_ONCE + 2)
    load, owner = Load(Database(engine, engine)), await asyncpg.connect(url)
    try:
        await load.run(WARM_UP_SECONDS)
        async with AsyncExitStack() as holding:
            if is_held:
                await holding.enter_async_context(hold_snapshot(url))
            done, dead = load.done, await owner.fetchval(DEAD)
            await load.run(seconds * 2 / 3)
            rate = await load.run(seconds / 3)
        dead_per_job = float(await owner.fetchval(DEAD) - dead) / (load.done - done)
        return Figures(rate, dead_per_job, load.longest_sweep_seconds)
    finally:
        await owner.close()
        await load.database.aclose()


@asynccontextmanager
async def hold_snapshot(url: str) -> AsyncIterator[None]:
    reader = await asyncpg.connect(url)
    async with reader.transaction(isolation="repeatable_read"):
        await reader.fetchval("select count(*) from tenants")
        yield
    await reader.close()


ROW = Row(12, "a snapshot is held while jobs go through", run)
