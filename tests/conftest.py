"""Real servers for every test that needs one: started once per session, on a socket or the loopback only."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.embedded_postgres import prepare_postgres
from orchestrator.stack.embedded_valkey import prepare_valkey
from orchestrator.stack.supervisor import Supervisor


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
