"""procrastinate: the queue is in Postgres too; woken by LISTEN and NOTIFY, jobs deferred many at a time."""

import asyncio
from collections.abc import Sequence
from functools import cache

from addresses import DATABASE_URL
from job import DATABASE_CONNECTIONS, Worker, open_worker
from procrastinate import App, PsycopgConnector
from sending import send

app = App(connector=PsycopgConnector(conninfo=DATABASE_URL, max_size=DATABASE_CONNECTIONS))


@cache
def opening() -> "asyncio.Task[Worker]":
    """It tells nobody that a worker starts: the first job opens the connections."""
    return asyncio.create_task(open_worker())


@app.task(name="answer")
async def answer(number: int) -> None:
    await (await opening()).answer(number)


async def send_many(numbers: Sequence[int]) -> None:
    await answer.batch_defer_async(*({"number": number} for number in numbers))


async def main() -> None:
    async with app.open_async():
        await send(send_many)


if __name__ == "__main__":
    asyncio.run(main())
