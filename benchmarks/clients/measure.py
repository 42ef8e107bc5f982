"""What every client is measured by: CPU of its own process per call. Standard library only, as peers have no llmyard.

A client's file makes one coroutine function that asks once, and hands it to `run`; the address of the model server, the
number of calls and how many wait at once come as arguments, and the figures go out as one line of JSON.
"""

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

WARM_UP_CALLS = 1500
"""By then whatever has a bound, such as a cache of 1,000 entries, has reached it."""
PAGE_BYTES = resource.getpagesize()

Ask = Callable[[int], Awaitable[str]]
"""Asks the n-th question and gives the answer's text."""


async def ask_many(ask: Ask, first: int, calls: int, in_flight: int) -> None:
    """So many calls, with so many waiting at once."""
    numbers = iter(range(first, first + calls))

    async def work() -> None:
        for number in numbers:
            answer = await ask(number)
            assert answer == "fine", answer

    await asyncio.gather(*(work() for _ in range(in_flight)))


def read_resident_mb() -> float:
    """Memory of this process now, where /proc tells it; else the most it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


async def measure(ask: Ask, calls: int, in_flight: int) -> dict[str, float]:
    await ask_many(ask, 0, WARM_UP_CALLS, in_flight)
    gc.collect()
    resident_mb = read_resident_mb()
    cpu, wall = time.process_time(), time.perf_counter()
    await ask_many(ask, WARM_UP_CALLS, calls, in_flight)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    gc.collect()
    return {
        "cpu_ms": cpu / calls * 1e3,
        "calls_per_second": calls / wall,
        "resident_mb": resident_mb,
        "growth_mb": read_resident_mb() - resident_mb,
    }


def read_arguments() -> tuple[str, int, int]:
    """Base URL, calls, in flight."""
    return sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def report(figures: dict[str, float]) -> None:
    print(json.dumps(figures))
