"""The floor: no queue. One loop in each process, aiohttp, and answers that are inserted in groups.

A list in Redis serves as the starting gun: it holds one range of numbers for each process. Nothing is acknowledged,
nothing is retried, and what a process holds goes with it.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence

import redis.asyncio as redis
from addresses import IN_FLIGHT, PROCESSES, REDIS_URL
from job import Worker, open_worker
from sending import send

GUN = "floor"
FLUSH_SECONDS = 0.02
FLUSH_ROWS = 100
INSERT = "insert into answers (id, content) select * from unnest($1::bigint[], $2::text[])"


class Groups:
    """Answers that wait to be inserted together."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._rows: list[tuple[int, str]] = []

    async def add(self, number: int, content: str) -> None:
        self._rows.append((number, content))
        if len(self._rows) >= FLUSH_ROWS:
            await self.flush()

    async def flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            await self._worker.pool.execute(INSERT, [row[0] for row in rows], [row[1] for row in rows])

    async def keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()


async def work_off(worker: Worker, numbers: Iterator[int], groups: Groups) -> None:
    for number in numbers:
        await groups.add(number, await worker.ask(number))


async def main() -> None:
    worker = await open_worker()
    groups = Groups(worker)
    flushing = asyncio.create_task(groups.keep_flushing())
    client = redis.from_url(REDIS_URL)
    while not flushing.done():
        _, order = await client.blpop(GUN)
        numbers = iter(range(*map(int, order.split())))
        await asyncio.gather(*(work_off(worker, numbers, groups) for _ in range(IN_FLIGHT)))


async def fire(numbers: Sequence[int]) -> None:
    """One range for each process."""
    async with redis.from_url(REDIS_URL) as client:
        for process in range(PROCESSES):
            mine = numbers[process::PROCESSES]
            if mine:
                await client.rpush(GUN, f"{mine[0]} {mine[-1] + 1} {PROCESSES}")


if __name__ == "__main__":
    asyncio.run(main() if os.environ.get("BENCH_ROLE") == "worker" else send(fire, together=sys.maxsize))
