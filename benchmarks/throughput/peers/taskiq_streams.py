"""taskiq on Redis streams, with acknowledgement after the job, as its worker does by default."""

import asyncio
from collections.abc import Sequence

from addresses import REDIS_URL
from job import Worker, open_worker
from sending import one_by_one, send
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(REDIS_URL)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_connections(state: TaskiqState) -> None:
    state.worker = await open_worker()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_connections(state: TaskiqState) -> None:
    await state.worker.aclose()


@broker.task(task_name="answer")
async def answer(number: int) -> None:
    worker: Worker = broker.state.worker
    await worker.answer(number)


async def send_many(numbers: Sequence[int]) -> None:
    await one_by_one([answer.kiq(number) for number in numbers])


async def main() -> None:
    await broker.startup()
    await send(send_many)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
