"""A whole llmyard out of real processes, each of which a test may kill: Valkey, workers, beat."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import asyncpg
import redis
from celery import Celery

from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.embedded_valkey import prepare_valkey
from orchestrator.stack.ports import accepts_connections
from orchestrator.stack.programs import build_kept_command
from shared.database import Database, create_engine, plain_dsn
from tests.acceptance.model_server import ModelServer

CATALOG = """
deployments:
  - {{name: counted, provider: openai_compatible, model: {model}, base_url: "{url}", api_key: none}}
groups:
  fast: {{deployments: [counted], retries: {retries}}}
  quality: {{deployments: [counted], retries: {retries}, fallbacks: [fast]}}
"""
LEASE_SECONDS = 3
CONCURRENCY = 32
CELERY = (sys.executable, "-m", "celery", "-A", "orchestrator.celery_app")


class Yard:
    """Leaving it ends every part that was started, whatever became of it."""

    def __init__(
        self,
        directory: Path,
        database_url: str,
        model: ModelServer,
        model_name: str = "counting-model",
        retries: int = 0,
        broker_url: str = "",
    ) -> None:
        self.model = model
        self.database_url = database_url
        self._directory = directory
        self._valkey = prepare_valkey(directory / "valkey")
        self._children: list[Child] = []
        catalog = directory / "llmyard.yaml"
        catalog.write_text(CATALOG.format(url=model.url, model=model_name, retries=retries))
        self.environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": self._valkey.url,
            "BROKER_URL": broker_url,
            "LLMYARD_CONFIG": str(catalog),
            "LLMYARD_LEASE_SECONDS": str(LEASE_SECONDS),
            "LLMYARD_CONCURRENCY": str(CONCURRENCY),
            "LLMYARD_SHUTDOWN_GRACE_SECONDS": "1",
            "LLM_POOL_URL": "",
        }

    def __enter__(self) -> Self:
        asyncio.run(seed(self.database_url))
        self.start_valkey()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def redis_url(self) -> str:
        return self._valkey.url

    @property
    def broker_url(self) -> str:
        return self.environment["BROKER_URL"] or self.redis_url

    def start_valkey(self) -> None:
        self.valkey = self._start(self._valkey.child())

    def start_worker(self, name: str = "worker", *, is_kept_alive: bool = False) -> Child:
        """`is_kept_alive`: the child is its keeper."""
        command = (*CELERY, "worker", "-n", f"{name}@test")
        if is_kept_alive:
            command = build_kept_command(command)
        return self._start(self._build(name, command, is_ready=lambda child: "worker_ready" in child.new_log()))

    def start_beat(self) -> Child:
        schedule = str(self._directory / "beat-schedule")
        command = (
            sys.executable,
            "-m",
            "celery",
            "-A",
            "orchestrator.celery_app",
            "beat",
            "-s",
            schedule,
            "--pidfile=",
        )
        return self._start(self._build("beat", command))

    def start_flower(self, port: int) -> Child:
        """With its API open, which it otherwise only is for those who log in."""
        command = (*CELERY, "flower", "--address=127.0.0.1", f"--port={port}")
        spec = self._build("flower", command, is_ready=lambda _: accepts_connections(port))
        return self._start(replace(spec, environment={**self.environment, "FLOWER_UNAUTHENTICATED_API": "true"}))

    def close(self) -> None:
        """What each part said last is shown where the test failed."""
        for child in reversed(self._children):
            child.end()
            print(f"--- {child.spec.name}\n{child.log_tail()}")

    def producer(self) -> Celery:
        """A foreign program's view: two URLs, and for RabbitMQ of which kind the queue is; nothing of ours."""
        kinds = dict.fromkeys(("task_default_queue_type", "task_create_missing_queue_type"), "quorum")
        kind = kinds if self.broker_url.startswith("amqp") else {}
        return Celery(broker=self.broker_url, backend=self.redis_url, changes=kind)

    def send(self, contents: list[str]) -> list["Reply"]:
        """One message for each content, which is also its id."""
        return self.send_messages([build_message(content) for content in contents])

    def send_messages(self, messages: list[Any]) -> list["Reply"]:
        app = self.producer()
        with app.producer_or_acquire() as producer:
            sent = [app.send_task("handle_message", [message], producer=producer).id for message in messages]
        return [Reply(self.redis_url, task_id) for task_id in sent]

    def rows(self, query: str, *parameters: Any) -> list[asyncpg.Record]:
        """Read the ledger as its owner."""

        async def fetch() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(plain_dsn(self.database_url))
            try:
                return await connection.fetch(query, *parameters)
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def count(self, query: str, *parameters: Any) -> int:
        return int(self.rows(query, *parameters)[0][0])

    def _build(
        self, name: str, command: tuple[str, ...], is_ready: Callable[[Child], bool] = lambda _: True
    ) -> ChildSpec:
        return ChildSpec(
            name, command, environment=self.environment, working_directory=self._directory, is_ready=is_ready
        )

    def _start(self, spec: ChildSpec) -> Child:
        child = Child(spec, self._directory)
        self._children.append(child)
        wait_until(lambda: child.is_ready() or child.exit_status() is not None, seconds=60)
        assert child.exit_status() is None, f"{spec.name} did not start:\n{child.log_tail()}"
        return child


async def seed(database_url: str) -> None:
    """What `llmyard migrate` makes besides the tables."""
    engine = create_engine(database_url)
    database = Database(engine, engine)
    await ensure_default_tenant(database)
    await database.aclose()


@dataclass(frozen=True)
class Reply:
    """A task's result as Celery's backend keeps it. Celery's own objects would each try to reach a Valkey long gone."""

    redis_url: str
    task_id: str

    @property
    def meta(self) -> dict[str, Any]:
        with redis.Redis.from_url(self.redis_url) as client:
            stored = client.get(f"celery-task-meta-{self.task_id}")
        return json.loads(stored) if stored else {"status": "PENDING", "result": None}

    @property
    def state(self) -> str:
        return str(self.meta["status"])

    def get(self, timeout: float) -> Any:
        """The result once it is final, whether it succeeded or failed."""
        wait_until(lambda: self.state in ("SUCCESS", "FAILURE"), timeout)
        return self.meta["result"]


def build_message(content: str, **fields: Any) -> dict[str, Any]:
    """What a producer sends; the content serves as id."""
    return {
        "id": content[:100],
        "channel": "slack",
        "sender": "U1",
        "content": content,
        "timestamp": "2026-01-01T00:00:00Z",
        **fields,
    }


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Look often, give up loudly."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.05)
