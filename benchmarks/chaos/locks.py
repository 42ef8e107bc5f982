"""Locks held from the outside, so that a worker stands still at a known place."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from benchmarks.chaos.yard import Yard


@contextmanager
def locked(yard: Yard, table: str, mode: str) -> Iterator[None]:
    """Hold the table until the end of the block."""
    with asyncio.Runner() as runner:
        connection = runner.run(lock(yard.database_url, f"lock table {table} in {mode} mode"))
        try:
            yield
        finally:
            runner.run(connection.close())


async def lock(url: str, statement: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(url)
    await connection.execute("begin")
    await connection.execute(statement)
    return connection
