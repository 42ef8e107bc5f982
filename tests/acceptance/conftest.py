"""A yard of real processes for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.model_server import ModelServer
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
