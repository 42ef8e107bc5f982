"""Before anything is measured every worker process has worked: imports, pools and caches are not what is compared."""

import asyncio
import time
from typing import Final

from benchmarks.throughput.observer import Observer

FIRST: Final = 1
"""Number of the first job of all."""
ROUNDS: Final = 20
SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05


async def warm_up(observer: Observer) -> int:
    """How many jobs it took until every process had asked the model.

    Raises:
        RuntimeError: a worker died, or did not come to work.
    """
    fleet, stage = observer.fleet, observer.stage
    stage.begin_model(0)
    jobs = max(20, min(200, int(fleet.system.jobs_per_second / 4)))
    for number in range(ROUNDS):
        fleet.enqueue(FIRST + number * jobs, jobs)
        await wait_for(observer, (number + 1) * jobs)
        if number >= 1 and is_all_at_work(observer):
            return (number + 1) * jobs
    raise RuntimeError(f"{fleet.system.name}: not every worker process came to work")


def is_all_at_work(observer: Observer) -> bool:
    fleet = observer.fleet
    if not fleet.system.has_loop:
        return True
    return fleet.count_connected(observer.stage.model_port) >= fleet.crew.processes


async def wait_for(observer: Observer, answers: int) -> None:
    deadline = time.monotonic() + SECONDS
    while await observer.count() < answers:
        observer.fleet.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{observer.fleet.system.name}: {await observer.count()} of {answers} to warm up")
        await asyncio.sleep(LOOK_SECONDS)
