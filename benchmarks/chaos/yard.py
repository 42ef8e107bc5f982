"""A whole llmyard out of real processes in a directory of its own, each of which a row may kill, stop or cut off."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import asyncpg
import redis
from celery import Celery

from benchmarks.chaos import ledger
from benchmarks.chaos.calls import COMPLETION_USD_PER_MILLION, PROMPT_USD_PER_MILLION
from benchmarks.chaos.checker import Evidence, Verdict, check
from benchmarks.chaos.model import Model
from benchmarks.chaos.parts import ForkOrder, Part, Program, Zygote, wait_until
from benchmarks.chaos.recorder import Recorder
from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.embedded_postgres import prepare_postgres
from orchestrator.stack.embedded_valkey import prepare_valkey
from orchestrator.stack.ports import accepts_connections, find_any_port

START_SECONDS: Final = 60.0
CATALOG: Final = """
deployments:
  - name: counted
    provider: openai_compatible
    model: chaos-model
    base_url: "{url}"
    api_key: none
    timeout_seconds: {timeout_seconds}
    price: {{prompt_usd_per_million: {prompt_price}, completion_usd_per_million: {completion_price}}}
groups:
  fast: {{deployments: [counted], retries: 0}}
  quality: {{deployments: [counted], retries: 0}}
# A cache would hide the very call that the bench looks for.
cache: {{store: none}}
"""


@dataclass(frozen=True, slots=True)
class YardSettings:
    """What differs between the yards of the rows."""

    lease_seconds: float = 3.0
    concurrency: int = 32
    timeout_seconds: float = 60.0
    """Of one attempt at the model server."""
    catalog: str = CATALOG
    """`str.format`ted with url, timeout_seconds, prompt_price, completion_price; literal braces are doubled."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """On top of the yard's own, for everything that works in it."""


class Yard:
    """Leaving it ends every part that was started, whatever became of it."""

    def __init__(self, directory: Path, settings: YardSettings) -> None:
        self.settings = settings
        self.directory = make_data_directory(directory)
        self.model = Model(self.directory)
        self.recorder = Recorder(self.directory / "enqueued.jsonl")
        self.api_port = find_any_port()
        self._postgres = prepare_postgres(self.directory / "postgres", print)
        self._valkey = prepare_valkey(self.directory / "valkey")
        self._ending = ExitStack()
        self.environment = self._build_environment()

    def __enter__(self) -> Self:
        with ExitStack() as ending:
            self._ending = ending
            self.start_postgres()
            self.start_valkey()
            self.add(self.model.start())
            self._zygote = Zygote(self.environment, self.directory / "zygote.log")
            ending.callback(self._zygote.close)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def database_url(self) -> str:
        """The superuser's."""
        return self._postgres.url

    @property
    def redis_url(self) -> str:
        return self._valkey.url

    def start_postgres(self) -> Part:
        """Also again, after it was ended."""
        self.postgres = self.add(Child(self._postgres.child(), self.directory))
        return self.postgres

    def start_valkey(self) -> Part:
        """Also again, after it was ended."""
        self.valkey = self.add(Child(self._valkey.child(), self.directory))
        return self.valkey

    def start_worker(
        self, name: str = "worker", *, wait: bool = True, queues: str | None = None, **environment: str
    ) -> Part:
        """Forked; `environment` stands on top of the yard's."""
        listened = () if queues is None else ("-Q", queues)
        part = self._fork(name, ("worker", "-n", f"{name}@chaos", "-l", "INFO", *listened), environment)
        if wait:
            self.wait_until_ready(part)
        return part

    def wait_until_ready(self, worker: Part) -> None:
        wait_until(lambda: "worker_ready" in worker.log() or not worker.is_alive(), START_SECONDS, "a worker is ready")
        if not worker.is_alive():
            raise RuntimeError(f"{worker.name} did not start:\n{worker.log()[-2000:]}")

    def start_beat(self, name: str = "beat", **environment: str) -> Part:
        schedule = str(self.directory / f"{name}-schedule")
        return self._fork(name, ("beat", "-s", schedule, "--pidfile="), environment)

    def start_api(self, **environment: str) -> Part:
        """On `api_port`; started, not forked."""
        command = (sys.executable, "-m", "orchestrator.cli.main", "api", "--port", str(self.api_port))
        spec = ChildSpec(
            "api",
            command,
            environment={**self.environment, **environment},
            working_directory=self.directory,
            is_ready=lambda _: accepts_connections(self.api_port),
        )
        return self.add(Child(spec, self.directory))

    def producer(self) -> Celery:
        """A foreign program's view: two URLs, nothing of ours."""
        return Celery(broker=self.redis_url, backend=self.redis_url)

    @cached_property
    def _app(self) -> Celery:
        return self.producer()

    def send(self, message_ids: Sequence[str], task_ids: Sequence[str] = (), **fields: Any) -> None:
        """By Celery, one message each, recorded; the id is the question too. What the broker refuses is raised."""
        app = self._app
        with app.producer_or_acquire() as producer:
            for position, message_id in enumerate(message_ids):
                task_id = task_ids[position] if task_ids else f"{message_id}-task"
                number = self.recorder.attempt(message_id, task_id)
                app.send_task(
                    "handle_message", [build_message(message_id, **fields)], task_id=task_id, producer=producer
                )
                self.recorder.acknowledge(number)

    def rows(self, query: str, *parameters: Any) -> list[asyncpg.Record]:
        """Read the database as its owner."""
        return asyncio.run(fetch(self.database_url, query, *parameters))

    def count(self, query: str, *parameters: Any) -> int:
        return int(self.rows(query, *parameters)[0][0])

    def wait_until_done(self, seconds: float) -> bool:
        """Every acknowledged message is a job in a final state, and told; False when the time was not enough."""
        deadline = time.monotonic() + seconds
        while True:
            looked_at = time.monotonic()
            if not self._count_outstanding():
                return True
            if looked_at > deadline:
                return False
            # Looking at many jobs takes long, and is not to be what keeps the machine busy.
            time.sleep(max(0.5, 3 * (time.monotonic() - looked_at)))

    def recover(self, seconds: float) -> float:
        """Beat and two fresh workers take up whatever is left; returns how long it took, or the whole time."""
        started_at = time.monotonic()
        for name in ("recovering-one", "recovering-two"):
            self.start_worker(name, wait=False)
        self.start_beat()
        self.wait_until_done(seconds)
        return time.monotonic() - started_at

    def gather(self) -> Evidence:
        enqueues = self.recorder.enqueues()
        jobs = ledger.build_jobs(self.rows(ledger.JOBS))
        return Evidence(enqueues, self.model.log.calls(), jobs, self._read_replies())

    def check(self) -> Verdict:
        return check(self.gather())

    def _count_outstanding(self) -> int:
        evidence = self.gather()
        verdict = check(evidence)
        return len(verdict.lost) + len(verdict.unheard)

    def _read_replies(self) -> list[ledger.Reply]:
        with redis.Redis.from_url(self.redis_url) as client:
            keys = list(client.scan_iter("celery-task-meta-*", count=5000))
            metas = [json.loads(value) for value in client.mget(keys) if value] if keys else []
        return [build_reply(meta) for meta in metas]

    def _fork(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Part:
        part = self._zygote.fork(ForkOrder(name, arguments, environment, self.directory))
        self._ending.callback(part.end)
        return part

    def add(self, child: Child) -> Part:
        part = Program(child)
        self._ending.callback(part.end)
        wait_until(lambda: child.is_ready() or not part.is_alive(), START_SECONDS, f"{part.name} is ready")
        if not part.is_alive():
            raise RuntimeError(f"{part.name} did not start:\n{child.log_tail()}")
        return part

    def _build_environment(self) -> dict[str, str]:
        catalog = self.directory / "llmyard.yaml"
        catalog.write_text(
            self.settings.catalog.format(
                url=self.model.url,
                timeout_seconds=self.settings.timeout_seconds,
                prompt_price=PROMPT_USD_PER_MILLION,
                completion_price=COMPLETION_USD_PER_MILLION,
            )
        )
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "BROKER_URL": "",
            "LLM_POOL_URL": "",
            "LLMYARD_CONFIG": str(catalog),
            "LLMYARD_LEASE_SECONDS": str(self.settings.lease_seconds),
            "LLMYARD_CONCURRENCY": str(self.settings.concurrency),
            "LLMYARD_SHUTDOWN_GRACE_SECONDS": "1",
            **self.settings.environment,
        }


def build_reply(meta: Mapping[str, Any]) -> ledger.Reply:
    result = meta["result"]
    content = result.get("content") if hasattr(result, "get") else None
    return ledger.Reply(meta["task_id"], meta["status"], content)


def build_message(message_id: str, **fields: Any) -> dict[str, Any]:
    """What a producer sends; the id serves as content."""
    return {
        "id": message_id,
        "channel": "slack",
        "sender": "bench",
        "content": message_id,
        "timestamp": "2026-01-01T00:00:00Z",
        **fields,
    }


def build_ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:05d}" for number in range(count)]


async def fetch(url: str, query: str, *parameters: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query, *parameters)
    finally:
        await connection.close()
