"""Row 13: the clocks of workers and beats are 5 minutes ahead or behind, and jump from one to the other.

Two workers and two beats, one of each ahead and one behind; bench, Postgres, Valkey and the model server have the true
time. Half way through jobs of four leases each, every clock jumps by 10 minutes. Then a worker is killed and a beat
ended, so that the worker that is left is ahead and its beat behind: what the dead one had in hand must be answered
within 2 x (lease + sweep). Then a provider puts jobs off until a date, to the worker while it is ahead and again while
it is behind: `Retry-After` as a date is where a provider's clock meets ours.

No effect means: no lease ran out before that kill, nothing was asked twice, what was put off came back when it was due.
Needs a C compiler, for the few lines that shift a clock; without one the row is not run.
"""

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from benchmarks.chaos import ledger
from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row, list_faults
from benchmarks.chaos.parts import Part, comes_about, wait_until
from benchmarks.chaos.shifted_clock import ShiftedClock, build_library, find_obstacle
from benchmarks.chaos.yard import Yard, YardSettings, build_ids
from orchestrator.beat import SWEEP_SECONDS
from orchestrator.stack.children import Child, ChildSpec

SHIFT_SECONDS: Final = 300
LEASE_SECONDS: Final = 3.0
BOUND_SECONDS: Final = 2 * (LEASE_SECONDS + SWEEP_SECONDS)
CONCURRENCY: Final = 16
LONG_SECONDS: Final = 4 * LEASE_SECONDS
SHORT_SECONDS: Final = 1.0
ANSWERED_SECONDS: Final = BOUND_SECONDS + SHORT_SECONDS
PUT_OFF_SECONDS: Final = 8.0
"""From the provider's refusal to the date in it."""
EARLY_SECONDS: Final = 3.0
"""Less than this is no fault: a date has whole seconds, and is a moment old when it is read."""
DRAIN_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Side:
    """A worker and a beat that go by one clock."""

    clock: ShiftedClock
    worker: Part
    beat: Part


@dataclass(frozen=True, slots=True)
class PutOff:
    """What came of jobs that a provider put off."""

    wrong: tuple[str, ...]
    missed: tuple[str, ...]


def run(bench: Bench) -> Finding:
    if obstacle := find_obstacle():
        return Finding(None, obstacle, is_not_run=True)
    with bench.open_yard(YardSettings(lease_seconds=LEASE_SECONDS, concurrency=CONCURRENCY)) as yard:
        sides = start_sides(yard, build_library(yard.directory))
        is_in_time = work_through_a_jump(yard, sides)
        wrong = tuple(find_effects(yard, sides))
        recovery_seconds = lose_a_worker(yard, sides)
        ahead = put_off_until_a_date(yard, "ahead")
        sides[1].clock.set(-SHIFT_SECONDS)
        behind = put_off_until_a_date(yard, "behind")
        verdict = yard.check()
    late = {
        "the running jobs did not end in their time": not is_in_time,
        f"the dead worker's jobs were not answered within {BOUND_SECONDS:.0f} s": recovery_seconds > ANSWERED_SECONDS,
    }
    wrong += (*ahead.wrong, *behind.wrong)
    missed = (*list_faults(late), *ahead.missed, *behind.missed)
    notes = "worker and beat 300 s ahead, worker and beat 300 s behind, all swapped half way through running jobs"
    return Finding(verdict, notes, wrong, missed, recovery_seconds)


def start_sides(yard: Yard, library: Path) -> tuple[Side, Side]:
    """The first is ahead, the second behind."""
    ahead, behind = (ShiftedClock(library, yard.directory / f"clock-{name}") for name in ("first", "second"))
    shift(ahead, behind)
    sides = start_side(yard, "first", ahead), start_side(yard, "second", behind)
    for side in sides:
        yard.wait_until_ready(side.worker)
    return sides


def shift(ahead: ShiftedClock, behind: ShiftedClock) -> None:
    ahead.set(SHIFT_SECONDS)
    behind.set(-SHIFT_SECONDS)


def start_side(yard: Yard, name: str, clock: ShiftedClock) -> Side:
    schedule = str(yard.directory / f"{name}-schedule")
    worker = start_program(yard, f"worker-{name}", clock, "worker", "-n", f"{name}@chaos")
    return Side(clock, worker, start_program(yard, f"beat-{name}", clock, "beat", "-s", schedule, "--pidfile="))


def start_program(yard: Yard, name: str, clock: ShiftedClock, *arguments: str) -> Part:
    command = (sys.executable, "-m", "celery", "-A", "orchestrator.celery_app", *arguments)
    environment = {**yard.environment, **clock.environment}
    return yard.add(
        Child(ChildSpec(name, command, environment=environment, working_directory=yard.directory), yard.directory)
    )


def work_through_a_jump(yard: Yard, sides: tuple[Side, Side]) -> bool:
    """Whether all was answered in its time.

    Raises:
        RuntimeError: the clocks did not jump, so the row would show nothing.
    """
    yard.model.behave("long", Behaviour(delay_seconds=LONG_SECONDS))
    yard.send([*build_ids("long", CONCURRENCY), *build_ids("quick", 100)])
    wait_until(lambda: yard.model.log.count("long") == CONCURRENCY, 30, "the long jobs are in hand")
    time.sleep(LONG_SECONDS / 2)
    ahead, behind = sides
    shift(behind.clock, ahead.clock)
    if not (behind.clock.is_shifted(SHIFT_SECONDS) and ahead.clock.is_shifted(-SHIFT_SECONDS)):
        raise RuntimeError("the clocks were not shifted")
    return yard.wait_until_done(LONG_SECONDS + BOUND_SECONDS)


def put_off_until_a_date(yard: Yard, whose: str) -> PutOff:
    due_at = datetime.now(UTC) + timedelta(seconds=PUT_OFF_SECONDS)
    yard.model.behave(whose, Behaviour(status=503, headers={"Retry-After": format_datetime(due_at, usegmt=True)}))
    yard.send(build_ids(whose, 4))
    was_asked = comes_about(lambda: yard.model.log.count(whose, ending="refused") > 0, DRAIN_SECONDS)
    yard.model.behave(whose, Behaviour())
    is_done = yard.wait_until_done(PUT_OFF_SECONDS + DRAIN_SECONDS)
    answered = [call.arrived_at for call in yard.model.log.calls(whose) if call.ending == "answered"]
    missed = {
        # One that an earlier date has switched off for minutes is not even asked.
        f"a worker that is {whose} does not call a provider that is well": not was_asked,
        f"a worker that is {whose} did not come back to what was put off when it was due": not is_done,
    }
    is_early = bool(answered) and min(answered) < due_at.timestamp() - EARLY_SECONDS
    early = {f"a worker that is {whose} came back to what was put off before it was due": was_asked and is_early}
    return PutOff(list_faults(early), list_faults(missed))


def find_effects(yard: Yard, sides: tuple[Side, Side]) -> Iterator[str]:
    yield from (
        f"{part.name} ended by itself" for side in sides for part in (side.worker, side.beat) if not part.is_alive()
    )
    if expired := yard.count(ledger.EXPIRED):
        yield f"{expired} leases ran out under living workers"
    answered = Counter(call.question for call in yard.model.log.calls() if call.ending == "answered")
    if twice := [question for question, calls in answered.items() if calls > 1]:
        yield f"{len(twice)} messages were asked about again"


def lose_a_worker(yard: Yard, sides: tuple[Side, Side]) -> float:
    """Leave the worker that is ahead with the beat that is behind; returns the seconds until all is answered."""
    now_behind, now_ahead = sides
    yard.model.behave("held", Behaviour(hold=True))
    yard.send(build_ids("held", 2 * CONCURRENCY))
    wait_until(lambda: yard.model.log.count("held") == 2 * CONCURRENCY, 30, "both workers have their hands full")
    now_ahead.beat.end()
    now_behind.worker.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    yard.model.behave("held", Behaviour(delay_seconds=SHORT_SECONDS))
    yard.model.release(yard.model.log.open("held"))
    yard.wait_until_done(3 * BOUND_SECONDS)
    return time.monotonic() - killed_at


ROW = Row(13, "clocks of workers and beats 5 minutes ahead and behind", run)
