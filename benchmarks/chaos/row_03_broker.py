"""Row 3: what Redis holds is thrown away while jobs wait and run; then Redis itself is gone for a while.

Messages come over HTTP, so that acknowledged means a committed row: these must be answered, each by one call. FLUSHALL
also takes what a foreign producer has put on the queue and no worker has taken yet; nothing here could know of that.

Redis is stopped in order, then killed, while submissions go on. A worker is back when it has begun a run; it must be
the same process, within 30 s of Redis' return. Redis is away for 1 s and 30 s in the short form, for 5 min too in the
long one: the longer an outage, the longer Celery waits between its attempts to connect.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import redis

from benchmarks.chaos import ledger
from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.checker import Verdict
from benchmarks.chaos.http_door import HttpDoor
from benchmarks.chaos.parts import Part, comes_about, wait_until
from benchmarks.chaos.presence import read_moment, time_returns
from benchmarks.chaos.yard import Yard, YardSettings, build_ids

IN_FLIGHT: Final = 100
HELD_SECONDS: Final = 600.0
"""Those in flight must still be there when all the others have been handed in, however slow the machine."""
RETURN_SECONDS: Final = 30.0
LONGEST_RETURN_SECONDS: Final = 75.0
"""Waited for, so that the table says how late a worker was."""
SHORT_STOPS: Final = (1, 30)
LONG_STOPS: Final = (1, 30, 300)
PER_SECOND: Final = 3
"""Submissions while Redis is away."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One outage of Redis, and who was back how many seconds after its end."""

    seconds: int
    returned: dict[str, float]
    workers: int

    @property
    def slowest(self) -> float:
        """Until all were back; infinite if they never were."""
        return max(self.returned.values()) if len(self.returned) == self.workers else float("inf")


def run(bench: Bench) -> Finding:
    settings = YardSettings(lease_seconds=10, concurrency=IN_FLIGHT // 2, timeout_seconds=HELD_SECONDS)
    with bench.open_yard(settings) as yard, HttpDoor(yard) as door:
        workers = [yard.start_worker(name) for name in ("one", "two")]
        yard.start_beat()
        yard.start_api()
        flushed, recovery_seconds = flush(yard, door, waiting=bench.choose(2000, 10_000))
        stops = [stop(yard, door, workers, seconds) for seconds in (LONG_STOPS if bench.is_long else SHORT_STOPS)]
        yard.wait_until_done(60)
        verdict = yard.check()
    notes = f"flushed with {flushed} messages on the queue and {IN_FLIGHT} jobs in flight; "
    notes += ", ".join(f"{s.seconds} s away: all consuming {s.slowest:.1f} s after" for s in stops)
    wrong = tuple(find_wrong(verdict, stops))
    return Finding(verdict, notes, wrong=wrong, missed=tuple(find_late(stops)), recovery_seconds=recovery_seconds)


def find_wrong(verdict: Verdict, stops: list[Stop]) -> Iterator[str]:
    if verdict.extra_calls:
        yield f"{verdict.extra_calls} extra calls"
    for each in stops:
        if len(each.returned) < each.workers:
            longest = f"{LONGEST_RETURN_SECONDS:.0f} s"
            yield f"{each.seconds} s away: of {each.workers} workers {len(each.returned)} were back within {longest}"


def find_late(stops: list[Stop]) -> Iterator[str]:
    for each in stops:
        if RETURN_SECONDS < each.slowest < float("inf"):
            yield f"{each.seconds} s away: all consuming only {each.slowest:.1f} s after"


def flush(yard: Yard, door: HttpDoor, *, waiting: int) -> tuple[int, float]:
    """Returns how many messages were thrown away, and the seconds from there until every job was done."""
    yard.model.behave("held", Behaviour(hold=True))
    door.submit(build_ids("held", IN_FLIGHT))
    wait_until(lambda: yard.model.log.count("held") == IN_FLIGHT, 60, "the workers have their hands full")
    door.submit(build_ids("waiting", waiting))
    with redis.Redis.from_url(yard.redis_url) as client:
        flushed = int(client.llen("celery"))
        client.flushall()
    started_at = time.monotonic()
    yard.model.behave("held", Behaviour())
    yard.model.release(yard.model.log.open("held"))
    comes_about(lambda: not yard.count(ledger.OPEN), 60 + waiting / 20)
    return flushed, time.monotonic() - started_at


def stop(yard: Yard, door: HttpDoor, workers: list[Part], seconds: int) -> Stop:
    # The first in order, longer ones without warning: what was not yet on the disk is lost as well.
    yard.valkey.send_signal(signal.SIGTERM if seconds == 1 else signal.SIGKILL)
    wait_until(lambda: not yard.valkey.is_alive(), 30, "Redis is gone")
    submitting = door.submit_over(seconds, build_ids(f"without{seconds}-", seconds * PER_SECOND))
    time.sleep(seconds)
    yard.start_valkey()
    since = read_moment(yard)
    submitting.result()

    def send(number: int) -> None:
        door.submit(build_ids(f"after{seconds}-{number:03d}-", 4))

    returned = time_returns(yard, workers, since, send, longest_seconds=LONGEST_RETURN_SECONDS)
    return Stop(seconds, returned, len(workers))


ROW = Row(3, "FLUSHALL with jobs waiting and in flight; Redis stopped", run)
