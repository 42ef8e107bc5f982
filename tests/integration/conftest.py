"""Eyes and hands on a test's database that row-level security does not bind."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from shared.database import Database


@pytest.fixture
async def superuser(database_url: str, database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Sees and changes every row of every tenant, each statement in a transaction of its own."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
