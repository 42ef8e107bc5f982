"""llmyard as a foreign program sees it: `send_task("handle_message", …)` with two URLs and nothing of ours."""

import asyncio
from collections.abc import Sequence

from addresses import REDIS_URL
from celery import Celery
from sending import send

app = Celery(broker=REDIS_URL, backend=REDIS_URL)


def build_message(number: int) -> dict[str, object]:
    return {
        "id": str(number),
        "channel": "api",
        "sender": "bench",
        "content": f"question {number}",
        "timestamp": "2026-01-01T00:00:00Z",
    }


async def send_many(numbers: Sequence[int]) -> None:
    with app.producer_or_acquire() as producer:
        for number in numbers:
            app.send_task("handle_message", [build_message(number)], producer=producer)


if __name__ == "__main__":
    asyncio.run(send(send_many))
