"""What the work that waits makes slower: the ledger's own operations, at more and more rows.

The rows are those of the fault bench's row 11, written straight into the ledger: half queued, a quarter parked, and
here a quarter answered after they had been parked. What broker and pool add does not know of rows.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from benchmarks.chaos.row_11_backlog import QUEUED, TENANTS, fill, time_it
from benchmarks.growth.section import Check, Scale, Section
from benchmarks.throughput.systems import OURS
from orchestrator.failed_requests.desk import FailedRequestDesk
from orchestrator.failed_requests.records import Wanted
from orchestrator.failed_requests.replay import release_due
from orchestrator.group_commit import GroupCommit
from orchestrator.jobs.store import Claim
from orchestrator.outcomes import Parked
from orchestrator.overview import read_overview
from orchestrator.reconcile import reconcile
from orchestrator.recorder import Recorder
from shared.database import Database, create_engine

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
COMPARED: Final = 10_000
"""The figures at the largest size are compared with those here."""
ROUNDS: Final = 3
MOST_GROWTH: Final = 2.0
LEASE_SECONDS: Final = 3600.0
CALLS: Final = {"claim": 200, "park": 200, "reconcile": 40, "drain": 40, "list": 40, "list, parked": 40, "status": 10}
"""How often each is timed, of one size; `list --stats` reads what `status` reads, and is as slow."""
BOUND: Final = ("claim", "drain")
"""What must not grow; the others are told."""
SETTLE: Final = """
with answered as (
    update failed_requests set state = 'answered', updated_at = now() - interval '1 hour'
    where state = 'parked' and get_byte(uuid_send(job_id), 1) % 2 = 0 returning job_id
)
update jobs set state = 'succeeded', finished_at = now(), run = 1 from answered where id = job_id
"""


@dataclass(frozen=True, slots=True)
class Times:
    """Of one operation, in seconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The ledger, and who works on it."""

    database: Database
    ledger: GroupCommit
    recorder: Recorder
    desk: FailedRequestDesk


Figures = Mapping[str, Times]


def measure_backlog(scale: Scale) -> Section:
    sizes = SIZES[:3] if scale.is_short else SIZES
    database = scale.stage.open_database(OURS)
    try:
        figures = asyncio.run(measure_all(database.url, sizes))
    finally:
        database.drop()
    return build_section(figures)


async def measure_all(url: str, sizes: Sequence[int]) -> dict[int, Figures]:
    engine = create_engine(url)
    owner = await asyncpg.connect(url)
    async with aclosing(Database(engine, engine)) as database:
        try:
            await owner.execute(TENANTS)
            return {size: await measure_at(size, before, database, owner) for before, size in pair(sizes)}
        finally:
            await owner.close()


def pair(sizes: Sequence[int]) -> Sequence[tuple[int, int]]:
    """Each with the one before it."""
    return tuple(zip((0, *sizes), sizes, strict=False))


async def measure_at(size: int, before: int, database: Database, owner: asyncpg.Connection) -> Figures:
    await fill(owner, before + 1, size)
    await owner.execute(SETTLE, timeout=600)
    await owner.execute("vacuum analyze", timeout=600)
    ledger = GroupCommit(database, worker="bench", lease_seconds=LEASE_SECONDS)
    bench = Bench(database, ledger, Recorder(database, ledger), FailedRequestDesk(database))
    figures = await measure(bench, owner, random.Random(size))  # noqa: S311 (a sample, no secret)
    print(
        f"  {size:,} rows: {', '.join(f'{name} {each.p99 * 1000:.1f} ms' for name, each in figures.items())}",
        flush=True,
    )
    return figures


async def measure(bench: Bench, owner: asyncpg.Connection, chance: random.Random) -> Figures:
    queued = await owner.fetch(QUEUED)
    sample = chance.sample(queued, min(len(queued), CALLS["claim"]))
    backlog = int(await owner.fetchval("select count(*) from jobs where state = 'queued'"))
    claims: list[Claim] = []
    return {
        "claim": await time_each([claiming(bench, row, claims) for row in sample]),
        "park": await time_each([parking(bench, claim) for claim in claims]),
        **await measure_sweeps(bench, backlog),
        **await measure_looks(bench),
    }


def claiming(bench: Bench, row: Any, claims: list[Claim]) -> Callable[[], Awaitable[None]]:
    async def claim() -> None:
        found = await bench.ledger.claim(row["id"], row["task_id"])
        assert found is not None, "every sampled job is queued"
        claims.append(found)

    return claim


def parking(bench: Bench, claim: Claim) -> Callable[[], Awaitable[object]]:
    return lambda: bench.recorder.record(claim, Parked("LLMUnavailableError", "down"))


async def measure_sweeps(bench: Bench, backlog: int) -> Figures:
    async def sweep() -> None:
        await reconcile(bench.database, lease_seconds=LEASE_SECONDS, backlog=backlog)

    return {
        "reconcile": await time_often("reconcile", sweep),
        "drain": await time_often("drain", lambda: release_due(bench.database)),
    }


async def measure_looks(bench: Bench) -> Figures:
    async def look() -> None:
        async with bench.database.as_system() as connection:
            await read_overview(connection, silent_seconds=60.0)

    return {
        "list": await time_often("list", lambda: bench.desk.list_some(Wanted())),
        "list, parked": await time_often("list, parked", lambda: bench.desk.list_some(Wanted(state="parked"))),
        "status": await time_often("status", look),
    }


async def time_often(name: str, operation: Callable[[], Awaitable[object]]) -> Times:
    return await time_each([operation] * CALLS[name])


async def time_each(operations: Sequence[Callable[[], Awaitable[object]]]) -> Times:
    """In rounds, of which the best counts, as noise only ever adds; the very first warms up plans and pages."""
    times = [await time_it(operation) for operation in operations][1:]
    rounds = [sorted(times[start::ROUNDS]) for start in range(ROUNDS)]
    return Times(min(pick(each, 0.5) for each in rounds), min(pick(each, 0.99) for each in rounds))


def pick(ordered: Sequence[float], share: float) -> float:
    """The least figure that so large a share of them does not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def build_section(figures: Mapping[int, Figures]) -> Section:
    largest = max(figures)
    grown = {name: grow(figures, name) for name in CALLS}
    return Section(
        "Growth with the backlog",
        "Milliseconds, p50 / p99, one operation at a time: half of the jobs are queued, a quarter parked, a quarter"
        " answered. `list` is a page of 50; `status` counts what there is.",
        ("operation", *(f"{size:,} jobs" for size in figures), f"{largest:,} to {COMPARED:,}"),
        [(name, *(describe(each[name]) for each in figures.values()), f"{grown[name]:.2f}") for name in CALLS],
        [Check(f"{name}: p99 at {largest:,} jobs to that at {COMPARED:,}", grown[name], MOST_GROWTH) for name in BOUND],
    )


def grow(figures: Mapping[int, Figures], name: str) -> float:
    return figures[max(figures)][name].p99 / figures[COMPARED][name].p99


def describe(times: Times) -> str:
    return f"{times.p50 * 1000:.1f} / {times.p99 * 1000:.1f}"
