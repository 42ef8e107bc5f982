"""Who is measured: how each is started, how its jobs are enqueued, and what it is expected to do.

A peer is run as somebody would who knows it well: its own command line, its own defaults save for the number of jobs at
once, and less logging, connections that are kept. "As people write it" is Celery alone, and says so.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from benchmarks.throughput.environments import make_environment, read_versions

PEERS: Final = Path(__file__).parent / "peers"
OUR_TABLES: Final = "ours_template"
PEERS_TABLE: Final = "peer_template"
COUNT_ANSWERS: Final = "select count(*) from answers"
COUNT_RESULTS: Final = "select count(*) from results"
FIND_ANSWERS: Final = "select id from answers where id = any($1::bigint[])"
FIND_RESULTS: Final = (
    "select message_id::bigint from messages join results using (job_id)"
    " where messages.tenant_id = 'default' and message_id = any($1::bigint[]::text[])"
)
# A job counts when its whole record is there: what was asked, the run, the attempt with its cost, and the answer.
COUNT_LEDGER: Final = """
select count(*) from jobs join messages on messages.job_id = jobs.id join results on results.job_id = jobs.id
where state = 'succeeded' and finished_at is not null
and exists (select from runs where runs.job_id = jobs.id and runs.number = jobs.run and outcome = 'succeeded')
and exists (select from attempts where attempts.job_id = jobs.id and cost_usd is not null)
and not exists (select from leases where leases.job_id = jobs.id)
"""


@dataclass(frozen=True, slots=True)
class Crew:
    """What is to work: so many processes, each with so many jobs under way."""

    processes: int
    in_flight: int


Command = tuple[str, ...]


@dataclass(frozen=True)
class System:
    """One of those that are compared."""

    name: str
    title: str
    environment: str
    """Name of its lock and its virtual environment; empty for our own."""
    short_title: str
    """In the plot."""
    packages: tuple[str, ...]
    """Whose versions are told; the first is the queue itself."""
    file: str
    """In `peers/`: run with Python it enqueues."""
    commands: Callable[[Path, Crew], tuple[Command, ...]]
    """The worker's command lines, each a process tree of its own; given its `bin` directory."""
    jobs_per_second: float
    """About what it does where the model answers at once; how many jobs it is given follows from it."""
    template: str = PEERS_TABLE
    """The database that its own are copies of."""
    count_query: str = COUNT_ANSWERS
    """Answers that can be read."""
    find_query: str = FIND_ANSWERS
    """Of these numbers, the jobs whose answers can be read."""
    record_query: str = COUNT_ANSWERS
    """Jobs whose record is whole."""
    prepare: Callable[[Path], Command] | None = None
    """Run once in a fresh database; given its `bin` directory."""
    has_loop: bool = True
    """A process has many jobs under way and keeps its connections; otherwise one job, and nothing is kept."""

    @cached_property
    def binaries(self) -> Path:
        return make_environment(self.environment) if self.environment else Path(sys.executable).parent

    @cached_property
    def versions(self) -> dict[str, str]:
        return read_versions(self.binaries, self.packages)

    def build_enqueue_command(self, first: int, count: int, rate: float | None) -> Command:
        pace = () if rate is None else (str(rate),)
        return (str(self.binaries / "python"), str(PEERS / self.file), str(first), str(count), *pace)

    def build_worker_commands(self, crew: Crew) -> tuple[Command, ...]:
        return self.commands(self.binaries, crew)


def start_ours(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    options = ("--concurrency", str(crew.in_flight), "--log-level", "WARNING")
    return tuple(
        (str(binaries / "python"), "-P", "-m", "orchestrator.cli.main", "worker", *options, "--hostname", f"w{n}@bench")
        for n in range(crew.processes)
    )


def start_floor(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    return ((str(binaries / "python"), str(PEERS / "floor.py")),) * crew.processes


def start_taskiq(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    size = ("--workers", str(crew.processes), "--max-async-tasks", str(crew.in_flight))
    return ((str(binaries / "taskiq"), "worker", "taskiq_streams:broker", *size, "--log-level", "WARNING"),)


def start_arq(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    command = (str(binaries / "arq"), "arq_redis.WorkerSettings", "--custom-log-dict", "arq_redis.QUIET")
    return (command,) * crew.processes


def start_saq(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    return ((str(binaries / "saq"), "saq_redis.settings", "--workers", str(crew.processes)),)


def start_dramatiq(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    size = ("--processes", str(crew.processes), "--threads", str(crew.in_flight))
    return ((str(binaries / "dramatiq"), "dramatiq_redis", *size),)


def start_procrastinate(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    command = (*name_procrastinate(binaries), "worker", "--concurrency", str(crew.in_flight))
    return (command,) * crew.processes


def name_procrastinate(binaries: Path) -> Command:
    return (str(binaries / "procrastinate"), "--log-level", "warning", "--app", "procrastinate_postgres.app")


def start_celery(binaries: Path, crew: Crew) -> tuple[Command, ...]:
    size = ("--concurrency", str(crew.processes))
    return ((str(binaries / "celery"), "-A", "celery_prefork", "worker", "--loglevel", "WARNING", *size),)


OURS: Final = System(
    "ours",
    "**llmyard**, one message a job",
    "",
    "llmyard",
    ("celery", "kombu", "redis", "httptools", "asyncpg"),
    "llmyard_producer.py",
    start_ours,
    jobs_per_second=2500,
    template=OUR_TABLES,
    count_query=COUNT_RESULTS,
    find_query=FIND_RESULTS,
    record_query=COUNT_LEDGER,
)
BULK: Final = replace(
    OURS,
    name="bulk",
    title="**llmyard**, `llmyard batch run`: 100 jobs a message",
    short_title="llmyard, bulk",
    file="llmyard_bulk.py",
    jobs_per_second=7000,
)
FLOOR: Final = System(
    "floor",
    "floor: no queue, inserts in groups",
    "floor",
    "floor",
    ("aiohttp", "asyncpg"),
    "floor.py",
    start_floor,
    jobs_per_second=14000,
)
TASKIQ: Final = System(
    "taskiq",
    "taskiq, Redis streams",
    "taskiq",
    "taskiq",
    ("taskiq", "taskiq-redis", "redis", "aiohttp", "asyncpg"),
    "taskiq_streams.py",
    start_taskiq,
    jobs_per_second=1800,
)
SAQ: Final = System(
    "saq",
    "SAQ, Redis",
    "saq",
    "SAQ",
    ("saq", "redis", "aiohttp", "asyncpg"),
    "saq_redis.py",
    start_saq,
    jobs_per_second=1500,
)
ARQ: Final = System(
    "arq",
    "arq",
    "arq",
    "arq",
    ("arq", "redis", "aiohttp", "asyncpg"),
    "arq_redis.py",
    start_arq,
    jobs_per_second=900,
)
DRAMATIQ: Final = System(
    "dramatiq",
    "dramatiq, Redis, async actors",
    "dramatiq",
    "dramatiq",
    ("dramatiq", "redis", "aiohttp", "asyncpg"),
    "dramatiq_redis.py",
    start_dramatiq,
    jobs_per_second=1500,
)
PROCRASTINATE: Final = System(
    "procrastinate",
    "procrastinate",
    "procrastinate",
    "procrastinate",
    ("procrastinate", "psycopg", "aiohttp", "asyncpg"),
    "procrastinate_postgres.py",
    start_procrastinate,
    jobs_per_second=600,
    prepare=lambda binaries: (*name_procrastinate(binaries), "schema", "--apply"),
)
CELERY: Final = System(
    "celery",
    "Celery as people write it: prefork, `asyncio.run`, fresh connections",
    "celery",
    "Celery as usual",
    ("celery", "kombu", "httpx", "asyncpg"),
    "celery_prefork.py",
    start_celery,
    jobs_per_second=50,
    has_loop=False,
)
PEERS_MEASURED: Final = (TASKIQ, SAQ, ARQ, DRAMATIQ, PROCRASTINATE, CELERY)
SYSTEMS: Final = (OURS, BULK, FLOOR, *PEERS_MEASURED)
