"""Row 10: workers are cut off from the broker or from the database, each through a proxy of its own, all at once.

stalled       nothing passes to or from Redis, and no connection ends; healed after the first bound
deafened      what Redis says never arrives, what is said to it does; healed after the first bound
cut           connections to Redis are reset, new ones too; healed after the first bound
stranded      its connections to Redis are dead and nobody tells it; new ones would pass (half-open)
databaseless  as `stranded`, but of its connections to Postgres, with transactions open that hold its jobs' rows

One more worker stays whole. The others have jobs in hand when it happens. The bound is 2 x (lease + sweep), twice: with
this yard's lease for the jobs, all of which must be answered and told while the partitions stand; with the shipped
lease of 30 s for the workers, each of which must consume again, counted from when its network lets it. What notices a
dead connection (socket timeouts, health checks) is set for that lease, and does not go by this yard's.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import parse_qs, urlsplit

from benchmarks.chaos import ledger
from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.locks import locked
from benchmarks.chaos.parts import Part, wait_until
from benchmarks.chaos.presence import find_present, read_moment, time_returns
from benchmarks.chaos.proxy import Connect, Direction, Proxy
from benchmarks.chaos.yard import START_SECONDS, Yard, YardSettings, build_ids
from orchestrator.beat import SWEEP_SECONDS

LEASE_SECONDS: Final = 5.0
SHIPPED_LEASE_SECONDS: Final = 30.0
JOBS_BOUND_SECONDS: Final = 2 * (LEASE_SECONDS + SWEEP_SECONDS)
WORKERS_BOUND_SECONDS: Final = 2 * (SHIPPED_LEASE_SECONDS + SWEEP_SECONDS)
CONCURRENCY: Final = 4
CONCURRENCY_OF_THE_WHOLE: Final = "32"
"""It does the work of all the others meanwhile."""
ANSWER_SECONDS: Final = 1.5
"""Of the model."""


@dataclass(frozen=True, slots=True)
class Partition:
    """What happens to one worker."""

    name: str
    strike: Callable[[Proxy], None]
    is_half_open: bool = False
    """New connections pass at once."""
    is_from_database: bool = False


DATABASELESS: Final = Partition("databaseless", Proxy.strand, is_half_open=True, is_from_database=True)
PARTITIONS: Final = (
    Partition("stalled", Proxy.stall),
    Partition("deafened", lambda proxy: proxy.swallow(Direction.TO_CLIENT)),
    Partition("cut", Proxy.cut),
    Partition("stranded", Proxy.strand, is_half_open=True),
    DATABASELESS,
)


@dataclass(frozen=True, slots=True)
class Victim:
    """A worker behind a proxy."""

    partition: Partition
    proxy: Proxy
    worker: Part


def run(bench: Bench) -> Finding:
    with bench.open_yard(YardSettings(lease_seconds=LEASE_SECONDS, concurrency=CONCURRENCY)) as yard:
        yard.model.behave("", Behaviour(delay_seconds=ANSWER_SECONDS))
        with enclose(yard) as victims:
            jobs_seconds = cut_off(yard, victims)
            returned = heal(yard, victims, jobs_seconds)
            yard.wait_until_done(30)
            verdict = yard.check()
    named = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in returned.items())
    notes = f"all answered and told {jobs_seconds:.1f} s after the cut; consuming again at most: {named}"
    missed = tuple(find_missed(jobs_seconds, returned))
    return Finding(verdict, notes, missed=missed, recovery_seconds=jobs_seconds)


def find_missed(jobs_seconds: float, returned: dict[str, float]) -> Iterator[str]:
    if jobs_seconds > JOBS_BOUND_SECONDS:
        yield f"not all answered and told within {JOBS_BOUND_SECONDS:.0f} s of the cut"
    for partition in PARTITIONS:
        if returned.get(partition.name, float("inf")) > WORKERS_BOUND_SECONDS:
            yield f"{partition.name}: not consuming within {WORKERS_BOUND_SECONDS:.0f} s of when it could"


@contextmanager
def enclose(yard: Yard) -> Iterator[list[Victim]]:
    """Start all workers, each of the victims behind its proxy."""
    with ExitStack() as network:
        victims = [start_victim(yard, partition, network) for partition in PARTITIONS]
        for victim in victims:
            yard.wait_until_ready(victim.worker)
        yard.start_worker("whole", LLMYARD_CONCURRENCY=CONCURRENCY_OF_THE_WHOLE)
        yard.start_beat()
        yield victims


def start_victim(yard: Yard, partition: Partition, network: ExitStack) -> Victim:
    if partition.is_from_database:
        proxy = network.enter_context(Proxy(connect_to_postgres(yard)))
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/llmyard?application_name={partition.name}"
        environment = {"DATABASE_URL": url}
    else:
        address = urlsplit(yard.redis_url)
        proxy = network.enter_context(Proxy(partial(asyncio.open_connection, address.hostname, address.port)))
        environment = {"REDIS_URL": yard.redis_url.replace(f":{address.port}/", f":{proxy.port}/")}
    return Victim(partition, proxy, yard.start_worker(partition.name, wait=False, **environment))


def connect_to_postgres(yard: Yard) -> Connect:
    (directory,) = parse_qs(urlsplit(yard.database_url).query)["host"]
    return partial(asyncio.open_unix_connection, f"{directory}/.s.PGSQL.5432")


def cut_off(yard: Yard, victims: list[Victim]) -> float:
    """Strike all of them with jobs in hand; returns the seconds until every job was answered and told, or too many."""
    since = read_moment(yard)
    yard.send(build_ids("before", 120))
    workers = [victim.worker for victim in victims]
    wait_until(
        lambda: len(find_present(yard, workers, since)) == len(workers), START_SECONDS, "each worker has a job in hand"
    )
    with locked(yard, "results", "exclusive"):
        are_recording = partial(yard.count, ledger.STANDING_STILL, DATABASELESS.name)
        # Several endings to a transaction, so of these there may be one.
        wait_until(lambda: are_recording() > 0, START_SECONDS, "the first transactions are under way")
        for victim in victims:
            victim.partition.strike(victim.proxy)
    struck_at = time.monotonic()
    yard.send(build_ids("during", 40))
    yard.wait_until_done(2 * JOBS_BOUND_SECONDS)
    return time.monotonic() - struck_at


def heal(yard: Yard, victims: list[Victim], jobs_seconds: float) -> dict[str, float]:
    """Returns for each the seconds from when its network let it until it consumed again, unless those were too many."""
    stands_for_seconds = max(jobs_seconds, JOBS_BOUND_SECONDS)
    time.sleep(stands_for_seconds - jobs_seconds)
    for victim in victims:
        victim.proxy.forward()
    workers = [victim.worker for victim in victims]

    def send(number: int) -> None:
        yard.send(build_ids(f"after{number:03d}-", 4))

    returned = time_returns(yard, workers, read_moment(yard), send, longest_seconds=WORKERS_BOUND_SECONDS)
    whole_before = {v.partition.name: stands_for_seconds for v in victims if v.partition.is_half_open}
    return {name: seconds + whole_before.get(name, 0.0) for name, seconds in returned.items()}


ROW = Row(10, "partition and half-open connections, to broker and database", run)
