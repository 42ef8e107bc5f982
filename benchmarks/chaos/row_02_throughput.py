"""Row 2: two workers under load, one of them killed again and again, each started anew at once.

The rate is held against the *surviving capacity*: the two workers are measured undisturbed, before and after; divided
by two and by the seconds, that is what one worker answers in a second of its life. A worker counts as capacity from its
`worker_ready` to its death, however long its start takes on the machine at hand. Between, while the kills go on,

    kept = answers in the window / (answers of one worker in a second x seconds that workers were alive in it)

must be at least 95 %. What a kill wastes (calls that had begun, on average half of one for each slot) counts against
it; so does whatever the survivor loses by expired leases, sweeps, redeliveries and the newcomer's start on the same
cores. A killed worker's own start does not: that is the machine's.

The load is kept at three jobs waiting for each slot. Kills come every 10 to 20 s, for 60 s in the short form, for 5
minutes in the long one. The model takes 0.5 s and the slots are few, so that it is they who bound the rate and not the
cores; where `undisturbed` is far below slots / 0.5 s, the cores had other things to do, and the ratio says little.
"""

import signal
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import redis

from benchmarks.chaos import ledger
from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.parts import Part
from benchmarks.chaos.yard import Yard, YardSettings

SLOTS: Final = 4
MODEL_SECONDS: Final = 0.5
WAITING: Final = 3 * 2 * SLOTS
UNDISTURBED_SECONDS: Final = 10.0
LEAST_KEPT: Final = 0.95


@dataclass(slots=True)
class Life:
    """One worker, from the moment it is ready."""

    part: Part
    ready_at: float | None = None
    died_at: float | None = None

    def alive_seconds(self, start: float, end: float) -> float:
        """Of this span."""
        if self.ready_at is None:
            return 0.0
        return max(0.0, min(end, self.died_at or end) - max(start, self.ready_at))


@dataclass(slots=True)
class Fleet:
    """Two workers and their successors, kept under load."""

    yard: Yard
    lives: list[Life] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=count)

    def add(self) -> None:
        self.lives.append(Life(self.yard.start_worker(f"worker{len(self.lives)}", wait=False)))

    @property
    def ready(self) -> list[Life]:
        return [life for life in self.lives if life.ready_at is not None and life.died_at is None]

    def kill(self, life: Life) -> None:
        life.part.send_signal(signal.SIGKILL)
        life.died_at = time.time()
        self.add()

    def work_until(self, moment: float) -> None:
        """Keep jobs waiting, and note who has become ready."""
        with redis.Redis.from_url(self.yard.redis_url) as client:
            while time.time() < moment:
                self._top_up(client.llen("celery"))
                self._note_ready()
                time.sleep(0.1)

    def _top_up(self, waiting: int) -> None:
        self.yard.send([f"q{next(self.numbers):06d}" for _ in range(WAITING - waiting)])

    def _note_ready(self) -> None:
        for life in self.lives:
            if life.ready_at is None and "worker_ready" in life.part.log():
                life.ready_at = time.time()

    def measure(self, start: float, end: float) -> float:
        """Answers in a span, for each second of a worker's life in it."""
        answers = self.yard.count(ledger.ANSWERED_BETWEEN, start, end)
        return answers / sum(life.alive_seconds(start, end) for life in self.lives)


def run(bench: Bench) -> Finding:
    seconds = bench.choose(60, 300)
    with bench.open_yard(YardSettings(concurrency=SLOTS)) as yard:
        yard.model.behave("", Behaviour(delay_seconds=MODEL_SECONDS))
        fleet = Fleet(yard)
        start(fleet)
        before = measure_undisturbed(fleet)
        kills, rate = measure_killed(fleet, bench, seconds)
        wait_for_two(fleet)
        after = measure_undisturbed(fleet)
        stopped_at = time.monotonic()
        yard.wait_until_done(60)
        recovery_seconds = time.monotonic() - stopped_at
        verdict = yard.check()
    kept = 2 * rate / (before + after)
    notes = (
        f"{kills} kills in {seconds} s, 2 workers of {SLOTS} slots; a worker's jobs/s undisturbed {before:.1f} before "
        f"and {after:.1f} after (its slots allow {SLOTS / MODEL_SECONDS:.0f}), {rate:.1f} meanwhile: kept {kept:.1%}"
    )
    missed = () if kept >= LEAST_KEPT else (f"{kept:.1%} is less than {LEAST_KEPT:.0%}",)
    return Finding(verdict, notes, missed=missed, recovery_seconds=recovery_seconds)


def start(fleet: Fleet) -> None:
    fleet.yard.start_beat()
    for _ in range(2):
        fleet.add()
    wait_for_two(fleet)


def wait_for_two(fleet: Fleet) -> None:
    """Both ready, and busy for a moment."""
    while len(fleet.ready) < 2:
        fleet.work_until(time.time() + 0.5)
    fleet.work_until(time.time() + 2)


def measure_undisturbed(fleet: Fleet) -> float:
    """Answers of one worker in a second of its life."""
    start = time.time()
    fleet.work_until(start + UNDISTURBED_SECONDS)
    return fleet.measure(start, start + UNDISTURBED_SECONDS)


def measure_killed(fleet: Fleet, bench: Bench, seconds: int) -> tuple[int, float]:
    """The number of kills, and the answers of one worker in a second of its life."""
    start = time.time()
    kills = 0
    while (next_kill_at := time.time() + bench.random.uniform(10, 20)) < start + seconds:
        fleet.work_until(next_kill_at)
        if fleet.ready:
            fleet.kill(bench.random.choice(fleet.ready))
            kills += 1
    fleet.work_until(start + seconds)
    return kills, fleet.measure(start, start + seconds)


ROW = Row(2, "one of two workers killed every 10 to 20 s under load", run)
