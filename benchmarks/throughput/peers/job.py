"""The job, the same for every system: ask the model server, store the answer, over connections that are kept.

Nobody's queue is imported here.
"""

from dataclasses import dataclass
from typing import Final

import aiohttp
import asyncpg
from addresses import DATABASE_URL, INSERT, MODEL_SECONDS, MODEL_URL, build_body

DATABASE_CONNECTIONS: Final = 8
"""In each process: more only wait for each other on a machine of a few cores."""


@dataclass(frozen=True, slots=True)
class Worker:
    """The connections of one process."""

    session: aiohttp.ClientSession
    pool: asyncpg.Pool

    async def answer(self, number: int) -> None:
        content = await self.ask(number)
        await self.pool.execute(INSERT, number, content)

    async def ask(self, number: int) -> str:
        async with self.session.post(f"{MODEL_URL}/chat/completions", json=build_body(number)) as response:
            response.raise_for_status()
            completion = await response.json()
        content: str = completion["choices"][0]["message"]["content"]
        return content

    async def aclose(self) -> None:
        await self.session.close()
        await self.pool.close()


async def open_worker() -> Worker:
    session = aiohttp.ClientSession(
        # Without `limit=0` aiohttp stops at 100 connections.
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=MODEL_SECONDS),
    )
    pool = await asyncpg.create_pool(DATABASE_URL, min_size=1, max_size=DATABASE_CONNECTIONS)
    return Worker(session, pool)
