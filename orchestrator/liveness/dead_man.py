"""Ends a process whose event loop stands still: a job's code may hold it, or the lock without which no thread runs.

A thread of faulthandler's own, in C, waits to be put off once more; it needs nothing of Python to print where each
thread stands and to end the process. The leases then run out, and whoever started the worker starts it again.
"""

import asyncio
import faulthandler
import sys
from typing import Final

LEASES: Final = 4
"""A worker silent for this many leases has nothing in hand any more."""
SHORTEST_SECONDS: Final = 30.0
"""A machine may be slow. Also spares a process that was stopped for less: time goes on meanwhile."""
LONGEST_REST_SECONDS: Final = 5.0


def decide_limit_seconds(lease_seconds: float) -> float:
    return max(LEASES * lease_seconds, SHORTEST_SECONDS)


async def hold_off(limit_seconds: float) -> None:
    """Put the end off again and again, for as long as the loop runs this."""
    if sys.__stderr__ is None:  # nowhere to leave the evidence
        return
    try:
        while True:
            faulthandler.dump_traceback_later(limit_seconds, exit=True, file=sys.__stderr__)
            await asyncio.sleep(min(limit_seconds / 10, LONGEST_REST_SECONDS))
    finally:
        faulthandler.cancel_dump_traceback_later()
