"""SAQ on Redis; a finished job is not kept there, as its answer stands in Postgres."""

import asyncio
from collections.abc import Sequence
from typing import Any

from addresses import IN_FLIGHT, MODEL_SECONDS, REDIS_URL
from job import Worker, open_worker
from saq import Queue
from sending import one_by_one, send

DROP_WHEN_DONE = -1
queue = Queue.from_url(REDIS_URL)


async def answer(context: dict[str, Any], *, number: int) -> None:
    worker: Worker = context["connections"]
    await worker.answer(number)


async def open_connections(context: dict[str, Any]) -> None:
    context["connections"] = await open_worker()


async def close_connections(context: dict[str, Any]) -> None:
    await context["connections"].aclose()


settings = {
    "queue": queue,
    "functions": [answer],
    "concurrency": IN_FLIGHT,
    "startup": open_connections,
    "shutdown": close_connections,
}


async def send_many(numbers: Sequence[int]) -> None:
    await one_by_one(
        [queue.enqueue("answer", number=number, timeout=MODEL_SECONDS, ttl=DROP_WHEN_DONE) for number in numbers]
    )


async def main() -> None:
    await queue.connect()
    await send(send_many)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
