"""A yard of real processes for each test, and what they left when it failed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agents.catalog import ensure_default_tenant
from shared.database import Database, create_engine
from tests.acceptance.model_server import ModelServer
from tests.acceptance.yard import Yard


@pytest.fixture
def model() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


async def seed(database_url: str) -> None:
    """What `llmyard migrate` makes besides the tables."""
    engine = create_engine(database_url)
    database = Database(engine, engine)
    await ensure_default_tenant(database)
    await database.aclose()


@pytest.fixture
def yard(tmp_path: Path, database_url: str, model: ModelServer) -> Iterator[Yard]:
    """Valkey runs; workers and beat are the test's to start, and to kill."""
    asyncio.run(seed(database_url))
    made = Yard(tmp_path, database_url, model)
    try:
        made.start_valkey()
        yield made
    finally:
        made.close()
