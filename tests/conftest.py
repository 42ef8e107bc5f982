"""Real servers for every test that needs one: started once per session, on a socket or the loopback only."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import structlog

from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.embedded_postgres import prepare_postgres
from orchestrator.stack.embedded_valkey import prepare_valkey
from orchestrator.stack.supervisor import Supervisor
from shared import migrations
from shared.database import Database, create_engine
from tests.databases import administrate, change_url, make_database


@pytest.fixture(autouse=True)
def events_go_nowhere_special() -> Iterator[None]:
    """A client of scripts decides for its whole process where events go, and which are told."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    # Not pytest's own directory: a second session of the same user closes that to others, and as root the
    # Postgres of this session is such another.
    directory = make_data_directory(Path(tempfile.mkdtemp(prefix="llmyard-test-")))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def server_supervisor(server_directory: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(server_directory, say=print)
    yield supervisor
    supervisor.stop()


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path, server_supervisor: Supervisor) -> str:
    """URL of a superuser, to a database without tables."""
    postgres = prepare_postgres(server_directory / "postgres", print, is_durable=False)
    server_supervisor.start(postgres.child())
    return postgres.url


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> str:
    """Name of a database that the migrations made once; the others are copies of it."""
    name = "llmyard_template"
    administrate(postgres_server, f"create database {name}")
    migrations.upgrade(change_url(postgres_server, database=name))
    return name


@pytest.fixture
def database_url(postgres_server: str, migrated_template: str) -> Iterator[str]:
    """URL of a superuser, to a migrated database of the test's own."""
    with make_database(postgres_server, f"template {migrated_template}") as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: str) -> Iterator[str]:
    """URL of a superuser, to a database of the test's own without tables."""
    with make_database(postgres_server, "template template0") as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Opened, with the default tenant and its agent."""
    opened = Database(create_engine(database_url), create_engine(database_url, pool_size=3))
    await ensure_default_tenant(opened)
    yield opened
    await opened.aclose()


@pytest.fixture(scope="session")
def valkey_url(server_directory: Path, server_supervisor: Supervisor) -> str:
    """Shared by the session: take `redis_url` unless a test minds its own keys."""
    valkey = prepare_valkey(server_directory / "valkey")
    server_supervisor.start(valkey.child())
    return valkey.url


@pytest.fixture
def redis_url(valkey_url: str) -> Iterator[str]:
    """An empty database."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        yield valkey_url
