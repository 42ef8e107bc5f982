"""How jobs are put on a queue: all at once, or at a steady pace with the moment of each written down.

    python PEER.py FIRST COUNT [RATE]

With a rate, in jobs a second, the moments go out as one line of JSON, by the clock that all processes share.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

TOGETHER = 200
"""Jobs that are handed to the queue's own client at a time."""

SendMany = Callable[[Sequence[int]], Awaitable[None]]
"""Puts the jobs of these numbers on the queue."""


async def send(send_many: SendMany, together: int = TOGETHER) -> None:
    """As the command line says."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    numbers = range(first, first + count)
    if len(sys.argv) > 3:
        print(json.dumps(await send_paced(send_many, numbers, float(sys.argv[3]))))
        return
    for start in range(0, count, together):
        await send_many(numbers[start : start + together])


async def send_paced(send_many: SendMany, numbers: Sequence[int], rate: float) -> list[float]:
    """The first goes out at once and is followed by a pause: it opens the connections."""
    await send_many(numbers[:1])
    await asyncio.sleep(0.5)
    moments = []
    begin = time.monotonic()
    for position, number in enumerate(numbers[1:]):
        await asyncio.sleep(max(0.0, begin + position / rate - time.monotonic()))
        moments.append(time.monotonic())
        await send_many([number])
    return moments


async def one_by_one(sends: Sequence[Awaitable[object]]) -> None:
    """For a queue that has no way to send many: at least all at once."""
    await asyncio.gather(*sends)
