"""A runner on the test's own ledger, asking a pool that follows a script."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest

from orchestrator.agents.runner import Runner
from orchestrator.celery_app import app
from shared.database import Database, create_engine
from tests.fakes.postgres_gate import PostgresGate, open_gate
from tests.fakes.scripted_pool import ScriptedPool
from tests.ledger import Jobs
from tests.running import build_runner

MakeRunner = Callable[[ScriptedPool], Runner]


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
async def gate(database_url: str) -> AsyncIterator[PostgresGate]:
    async with open_gate(database_url) as gate:
        yield gate


@pytest.fixture
async def gated(gate: PostgresGate, database: Database) -> AsyncIterator[Database]:
    """The same database, reached through the gate."""
    gated = Database(create_engine(gate.url), create_engine(gate.url))
    yield gated
    await gated.aclose()


@pytest.fixture
def make_runner(database: Database) -> MakeRunner:
    def make(pool: ScriptedPool) -> Runner:
        return build_runner(database, pool)

    return make


@pytest.fixture
def broker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Celery's application on an empty broker."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    with celery_on(redis_url):
        yield redis_url


@pytest.fixture
def no_broker(broker: str) -> Iterator[None]:
    """Nobody listens where the broker was."""
    with celery_on("redis://127.0.0.1:1/0"):
        yield


@contextmanager
def celery_on(url: str) -> Iterator[None]:
    before = app.conf.broker_url
    point_celery_at(url)
    yield
    point_celery_at(before)


def point_celery_at(url: str) -> None:
    app.conf.update(broker_url=url, result_backend=url, result_backend_max_retries=1)
    # What a fork makes it forget is just what it keeps of its connections to the broker.
    app._after_fork()
    app._backend_cache = None
