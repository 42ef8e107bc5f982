"""What all are measured on: a Postgres, a Valkey, a model server, and for each measurement a fresh database."""

import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import asyncpg
import redis

from benchmarks.chaos.parts import Program, wait_until
from benchmarks.chaos.template import accepts, seed
from benchmarks.throughput.systems import OUR_TABLES, PEERS, PEERS_TABLE, Crew, System
from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.embedded_postgres import prepare_postgres
from orchestrator.stack.embedded_valkey import prepare_valkey
from orchestrator.stack.ports import LOOPBACK, accepts_connections, find_any_port
from shared import migrations

HERE: Final = Path(__file__).parent
START_SECONDS: Final = 60.0
GONE_SECONDS: Final = 20.0
CONNECTED: Final = "select count(*) from pg_stat_activity where datname = $1"
COMMITS: Final = "select xact_commit from pg_stat_database where datname = $1"
ANSWERS: Final = (
    "create table answers (id bigint primary key, content text not null, stored_at timestamptz default now())"
)
CATALOG: Final = """
deployments:
  - name: bench
    provider: openai_compatible
    model: bench-model
    base_url: "{url}"
    api_key: none
    timeout_seconds: 120
    price: {{prompt_usd_per_million: 1, completion_usd_per_million: 2}}
groups:
  fast: {{deployments: [bench]}}
  quality: {{deployments: [bench]}}
"""
ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Counts:
    """What the model server saw since it was last told to begin."""

    requests: int
    answered: int
    peak: int
    """Requests in flight together, at most."""


class Stage:
    """Leaving it ends every process on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = make_data_directory(directory)
        self._postgres = prepare_postgres(self.directory / "postgres", print)
        self._valkey = prepare_valkey(self.directory / "valkey")
        self._model_port = find_any_port()
        self._databases = 0
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as ending:
            self._ending = ending
            ending.callback(self._postgres.discard_socket_directory)
            self.postgres = self.add(self._postgres.child())
            self.valkey = self.add(self._valkey.child())
            self.model = self.add(self._describe_model())
            self._make_templates()
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def model_port(self) -> int:
        return self._model_port

    @property
    def redis_url(self) -> str:
        return self._valkey.url

    def add(self, spec: ChildSpec) -> Program:
        """Start it, and end it with the stage.

        Raises:
            RuntimeError: it did not start, with the end of its log.
        """
        child = Child(spec, self.directory)
        part = Program(child)
        self._ending.callback(part.end)
        wait_until(lambda: child.is_ready() or not part.is_alive(), START_SECONDS, f"{spec.name} is ready")
        if not part.is_alive():
            raise RuntimeError(f"{spec.name} did not start:\n{child.log_tail()}")
        return part

    def begin_model(self, delay_ms: float) -> None:
        """From here on it takes this long, and its counts begin at zero."""
        self._ask_model(f"/control?delay_ms={delay_ms}")

    def count_model(self) -> Counts:
        return Counts(**self._ask_model("/counts"))

    def _ask_model(self, target: str) -> dict[str, Any]:
        with urlopen(f"http://{LOOPBACK}:{self._model_port}{target}", timeout=10) as reply:
            found: dict[str, Any] = json.loads(reply.read())
            return found

    def _describe_model(self) -> ChildSpec:
        return ChildSpec(
            "model",
            (sys.executable, str(HERE / "model_server.py"), str(self._model_port)),
            is_ready=lambda _: accepts_connections(self._model_port),
        )

    def open_database(self, system: System) -> "Database":
        """A fresh one from the system's template; the queue is emptied too."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()
        self._databases += 1
        name = f"run{self._databases}"
        asyncio.run(execute(self._postgres.url, f"create database {name} template {system.template}"))
        return Database(replace_database(self._postgres.url, name), name, self._postgres.url)

    def build_environment(self, database: "Database", crew: Crew) -> dict[str, str]:
        """Everybody's: each reads what it knows."""
        model_url = f"http://{LOOPBACK}:{self._model_port}/v1"
        catalog = self.directory / "llmyard.yaml"
        catalog.write_text(CATALOG.format(url=model_url))
        return {
            "BENCH_MODEL_URL": model_url,
            "BENCH_DATABASE_URL": database.url,
            "BENCH_REDIS_URL": self.redis_url,
            "BENCH_IN_FLIGHT": str(crew.in_flight),
            "BENCH_PROCESSES": str(crew.processes),
            "DATABASE_URL": database.url,
            "REDIS_URL": self.redis_url,
            "BROKER_URL": "",
            "LLM_POOL_URL": "",
            "LLMYARD_CONFIG": str(catalog),
            "PYTHONPATH": str(PEERS),
        }

    def _make_templates(self) -> None:
        wait_until(lambda: accepts(self._postgres.url), START_SECONDS, "the database accepts")
        migrations.upgrade(self._postgres.url)
        asyncio.run(seed(self._postgres.url))
        url = replace_database(self._postgres.url, "postgres")
        asyncio.run(execute(url, f"create database {OUR_TABLES} template llmyard"))
        asyncio.run(execute(url, f"create database {PEERS_TABLE}"))
        asyncio.run(execute(replace_database(url, PEERS_TABLE), ANSWERS))


@dataclass(frozen=True)
class Database:
    """Of one measurement."""

    url: str
    name: str
    admin_url: str

    def count_commits(self) -> int:
        """Since it was made. A session tells of its last ones when it ends: everybody has to be gone."""
        wait_until(lambda: self._fetch(CONNECTED) == 0, GONE_SECONDS, f"nobody is connected to {self.name}")
        return self._fetch(COMMITS)

    def _fetch(self, query: str) -> int:
        return int(asyncio.run(fetch_value(self.admin_url, query, self.name)))

    def drop(self) -> None:
        asyncio.run(execute(self.admin_url, f"drop database {self.name} with (force)"))


def replace_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fetch_value(url: str, query: str, *arguments: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()
