"""Sends a statement over many rows straight to the driver.

On its way through SQLAlchemy it would cost as much as three of the jobs in it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

# To plan such a statement takes longer than to do it, so its plan is made once and kept. Made while a table is small it
# would read that from end to end, and go on to do so at a million rows, until somebody counts them.
PLAN_ONCE: Final = "set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off"


async def plan_once(connection: AsyncConnection) -> None:
    """For the rest of the transaction."""
    await _find_driver(connection).execute(PLAN_ONCE)


async def fetch(
    connection: AsyncConnection, statement: TextClause, parameters: Mapping[str, Any]
) -> list[asyncpg.Record]:
    """All rows of a statement whose text gives every parameter its type, in the connection's transaction.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: as the driver has it.
    """
    compiled, names = compile_statement(statement)
    driver = _find_driver(connection)
    rows: list[asyncpg.Record] = await driver.fetch(compiled, *(parameters[name] for name in names))
    return rows


def _find_driver(connection: AsyncConnection) -> asyncpg.Connection:
    assert connection.sync_connection is not None, "its transaction has begun"
    driver: asyncpg.Connection | None = connection.sync_connection.connection.driver_connection
    assert driver is not None, "the pool connects before it hands out"
    return driver


@cache
def compile_statement(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """As the driver takes it, and its parameters' names in the order of their numbers."""
    dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy gives it no types
    compiled = statement.compile(dialect=dialect)
    assert compiled.positiontup is not None, "the dialect's parameters are numbered"
    return str(compiled), tuple(compiled.positiontup)
