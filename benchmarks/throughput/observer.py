"""Who looks on: one connection to the database of a measurement, and the readings before and after."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from benchmarks.throughput.costs import Reading, measure_cpu
from benchmarks.throughput.fleet import Fleet
from benchmarks.throughput.stage import Database, Stage

WAL_BYTES = "select (pg_current_wal_insert_lsn() - '0/0')::bigint"


@dataclass(slots=True)
class Observer:
    """Counts its own statements, so that nobody else is charged for them."""

    connection: asyncpg.Connection
    stage: Stage
    fleet: Fleet
    statements: int = 0

    async def count(self) -> int:
        """Answers that can be read."""
        self.statements += 1
        return int(await self.connection.fetchval(self.fleet.system.count_query))

    async def count_records(self) -> int:
        """Jobs whose record is whole."""
        self.statements += 1
        return int(await self.connection.fetchval(self.fleet.system.record_query))

    async def find(self, numbers: Sequence[int]) -> list[int]:
        """Of these jobs, those whose answers can be read."""
        self.statements += 1
        return [row[0] for row in await self.connection.fetch(self.fleet.system.find_query, numbers)]

    async def read(self) -> Reading:
        self.statements += 1
        wal_bytes = await self.connection.fetchval(WAL_BYTES)
        return Reading(
            time.monotonic(),
            self.fleet.measure_cpu(),
            measure_cpu([self.stage.postgres.pid]),
            measure_cpu([self.stage.valkey.pid]),
            wal_bytes,
        )


@asynccontextmanager
async def open_observer(stage: Stage, fleet: Fleet, database: Database) -> AsyncIterator[Observer]:
    connection = await asyncpg.connect(database.url)
    try:
        yield Observer(connection, stage, fleet)
    finally:
        await connection.close()
