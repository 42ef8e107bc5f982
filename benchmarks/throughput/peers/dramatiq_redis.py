"""dramatiq on Redis: an async actor, which its AsyncIO middleware runs on one loop, a thread waiting for each job."""

import asyncio
from collections.abc import Sequence
from typing import Any

import dramatiq
from addresses import REDIS_URL
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, Middleware
from job import Worker, open_worker
from sending import send


class Connections(Middleware):
    """Opened on the loop of the worker process, before its first job."""

    worker: Worker

    def before_worker_boot(self, *_: Any) -> None:
        self.worker = run_on_loop(open_worker())

    def after_worker_shutdown(self, *_: Any) -> None:
        run_on_loop(self.worker.aclose())


def run_on_loop(coroutine: Any) -> Any:
    thread = get_event_loop_thread()
    assert thread is not None, "started by AsyncIO"
    return thread.run_coroutine(coroutine)


connections = Connections()
broker = RedisBroker(url=REDIS_URL)
broker.add_middleware(AsyncIO())
broker.add_middleware(connections)
dramatiq.set_broker(broker)


@dramatiq.actor
async def answer(number: int) -> None:
    await connections.worker.answer(number)


async def send_many(numbers: Sequence[int]) -> None:
    """Its client is synchronous."""
    for number in numbers:
        answer.send(number)


if __name__ == "__main__":
    asyncio.run(send(send_many))
