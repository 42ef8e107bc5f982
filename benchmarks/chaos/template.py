"""A migrated database directory, made once in a run and copied for each yard: initdb and migrations cost seconds."""

import asyncio
from pathlib import Path

import asyncpg

from benchmarks.chaos.parts import Program, wait_until
from benchmarks.chaos.yard import START_SECONDS, fetch
from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.stack.children import Child
from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.embedded_postgres import prepare_postgres
from shared import migrations
from shared.database import Database, create_engine


def make_database_directory(directory: Path) -> Path:
    """Migrated and stopped, to be copied for each yard."""
    make_data_directory(directory)
    postgres = prepare_postgres(directory / "postgres", print)
    server = Program(Child(postgres.child(), directory))
    try:
        wait_until(lambda: accepts(postgres.url), START_SECONDS, "the database accepts")
        migrations.upgrade(postgres.url)
        asyncio.run(seed(postgres.url))
    finally:
        server.end()
        postgres.discard_socket_directory()
    return directory / "postgres"


def accepts(url: str) -> bool:
    try:
        asyncio.run(fetch(url, "select 1"))
    except (OSError, asyncpg.PostgresError):
        return False
    return True


async def seed(url: str) -> None:
    """What `llmyard migrate` makes besides the tables."""
    engine = create_engine(url)
    database = Database(engine, engine)
    await ensure_default_tenant(database)
    await database.aclose()
