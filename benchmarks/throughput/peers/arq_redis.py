"""arq, without results in Redis, and looking for jobs more often than each half second, which would be its latency."""

import asyncio
from collections.abc import Sequence
from typing import Any

from addresses import IN_FLIGHT, MODEL_SECONDS, REDIS_URL
from arq import create_pool
from arq.connections import RedisSettings
from job import Worker, open_worker
from sending import one_by_one, send

REDIS = RedisSettings.from_dsn(REDIS_URL)
# Of 0.5, 0.1, 0.05 and 0.01 s the middle two gave the most jobs a second; this one answers sooner.
POLL_SECONDS = 0.05

# It tells of each job otherwise; named on the command line.
QUIET = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}


async def answer(context: dict[str, Any], number: int) -> None:
    worker: Worker = context["worker"]
    await worker.answer(number)


async def open_connections(context: dict[str, Any]) -> None:
    context["worker"] = await open_worker()


async def close_connections(context: dict[str, Any]) -> None:
    await context["worker"].aclose()


class WorkerSettings:
    """Named on arq's command line."""

    functions = (answer,)
    redis_settings = REDIS
    on_startup = open_connections
    on_shutdown = close_connections
    max_jobs = IN_FLIGHT
    job_timeout = MODEL_SECONDS
    keep_result = 0
    poll_delay = POLL_SECONDS
    log_results = False


async def main() -> None:
    pool = await create_pool(REDIS)

    async def send_many(numbers: Sequence[int]) -> None:
        await one_by_one([pool.enqueue_job("answer", number) for number in numbers])

    await send(send_many)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(main())
