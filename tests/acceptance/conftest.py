"""A yard of real processes for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.model_server import ModelServer
from tests.acceptance.rabbitmq import NOT_INSTALLED, RabbitMQ, find_program, prepare_rabbitmq
from tests.acceptance.yard import Yard


@pytest.fixture
def model() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture
def yard(tmp_path: Path, database_url: str, model: ModelServer) -> Iterator[Yard]:
    """Valkey runs; workers and beat are the test's to start, and to kill."""
    with Yard(tmp_path, database_url, model) as opened:
        yield opened


@pytest.fixture(scope="session")
def rabbitmq_server(server_directory: Path) -> Iterator[RabbitMQ]:
    """Started once, as that takes seconds."""
    program = find_program()
    if program is None:
        pytest.skip(NOT_INSTALLED)
    with prepare_rabbitmq(server_directory / "rabbitmq", program) as server:
        yield server


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitMQ) -> Iterator[RabbitMQ]:
    """Without queues."""
    yield rabbitmq_server
    rabbitmq_server.clear()


@pytest.fixture
def rabbitmq_yard(tmp_path: Path, database_url: str, model: ModelServer, rabbitmq: RabbitMQ) -> Iterator[Yard]:
    """As `yard`, with RabbitMQ for a broker."""
    with Yard(tmp_path, database_url, model, broker_url=rabbitmq.url) as opened:
        yield opened


RABBITMQ = pytest.param("rabbitmq_yard", id="rabbitmq", marks=pytest.mark.long)


@pytest.fixture(params=[pytest.param("yard", id="redis"), RABBITMQ])
def either_yard(request: pytest.FixtureRequest) -> Yard:
    """One after the other: what holds for one broker holds for the other."""
    opened: Yard = request.getfixturevalue(request.param)
    return opened
