"""Celery as people write it for a model call: prefork, `asyncio.run` in each task, fresh connections in each."""

import asyncio
from collections.abc import Sequence

import asyncpg
import httpx
from addresses import DATABASE_URL, INSERT, MODEL_SECONDS, MODEL_URL, REDIS_URL, build_body
from celery import Celery
from sending import send

app = Celery("celery_prefork", broker=REDIS_URL)
app.conf.task_ignore_result = True


@app.task(name="answer")
def answer(number: int) -> None:
    asyncio.run(ask_and_store(number))


async def ask_and_store(number: int) -> None:
    async with httpx.AsyncClient(timeout=MODEL_SECONDS) as client:
        response = await client.post(f"{MODEL_URL}/chat/completions", json=build_body(number))
        response.raise_for_status()
    content = response.json()["choices"][0]["message"]["content"]
    connection = await asyncpg.connect(DATABASE_URL)
    try:
        await connection.execute(INSERT, number, content)
    finally:
        await connection.close()


async def send_many(numbers: Sequence[int]) -> None:
    with app.producer_or_acquire() as producer:
        for number in numbers:
            answer.apply_async((number,), producer=producer)


if __name__ == "__main__":
    asyncio.run(send(send_many))
