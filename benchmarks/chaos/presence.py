"""Who works, told by the ledger: a worker consumes again once it has begun a run."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from benchmarks.chaos import ledger
from benchmarks.chaos.parts import Part
from benchmarks.chaos.yard import Yard

LOOK_SECONDS: Final = 0.3


def read_moment(yard: Yard) -> datetime:
    """Now, by the clock that dates the runs."""
    moment: datetime = yard.rows("select clock_timestamp()")[0][0]
    return moment


def find_present(yard: Yard, workers: Sequence[Part], since: datetime) -> dict[str, float]:
    """Names of those that have begun a run since then, with the seconds until their first."""
    first_runs = {
        int(row["worker"].rpartition(":")[2]): row["seconds"] for row in yard.rows(ledger.WORKING_SINCE, since)
    }
    return {worker.name: first_runs[worker.pid] for worker in workers if worker.pid in first_runs}


def time_returns(
    yard: Yard,
    workers: Sequence[Part],
    since: datetime,
    send: Callable[[int], object],
    *,
    longest_seconds: float,
) -> dict[str, float]:
    """Send a trickle until every worker has begun a run; says of each that did how many seconds after `since`.

    `send` is given a number that rises, and sends a few messages: enough that each idle worker gets its turn.
    """
    deadline = time.monotonic() + longest_seconds
    number = 0
    while len(present := find_present(yard, workers, since)) < len(workers) and time.monotonic() < deadline:
        send(number)
        number += 1
        time.sleep(LOOK_SECONDS)
    return present
