"""Row 1: kill -9 of workers at every stage of a run.

A stage is held from the outside, so that every victim stands exactly there with all its jobs when it is killed:

claimed      a lock on `agents`, which a run reads between its claim and its call
sent         the model server has the call and does not answer
first token  the server has sent the headers and half of the body
answered     a lock on `results`: the answer is there, its transaction cannot commit
committed    Valkey is stopped once the calls have arrived: the answer commits, its acknowledgement cannot leave

Beat is off while the kills go on, so that no recovered job is killed again before it was ever left alone (five crashes
are a quarantine, which is another row). Then beat and two workers recover everything. Kills at moments nobody chose,
sweeps included, are row 2's.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from benchmarks.chaos import ledger
from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.locks import locked
from benchmarks.chaos.parts import Part, wait_until
from benchmarks.chaos.yard import Yard, YardSettings, build_ids

VICTIMS: Final = 20
"""Workers killed at a time."""
JOBS_EACH: Final = 3
STAGE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Victims, and the jobs they are to have in hand when they are killed."""

    yard: Yard
    prefix: str
    """Of the ids of its messages."""
    size: int

    def count(self, query: str) -> int:
        return self.yard.count(query, self.prefix)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, STAGE_SECONDS, f"{self.prefix} is {what}")

    def send(self) -> None:
        self.yard.send(build_ids(self.prefix, self.size))

    def wait_for_calls(self) -> None:
        self.wait(lambda: self.yard.model.log.count(self.prefix) == self.size, "asked")


@contextmanager
def stand_claimed(batch: Batch) -> Iterator[None]:
    with locked(batch.yard, "agents", "access exclusive"):
        batch.send()
        batch.wait(lambda: batch.count(ledger.RUNNING) == batch.size, "claimed")
        yield


@contextmanager
def stand_sent(batch: Batch) -> Iterator[None]:
    with held(batch, Behaviour(hold=True)):
        yield


@contextmanager
def stand_at_first_token(batch: Batch) -> Iterator[None]:
    with held(batch, Behaviour(hold_after_half=True)):
        batch.wait(lambda: all(call.began_at for call in batch.yard.model.log.calls(batch.prefix)), "half answered")
        yield


@contextmanager
def stand_answered(batch: Batch) -> Iterator[None]:
    log, model = batch.yard.model.log, batch.yard.model
    # All are asked before: the claim of one may be in the same commit as the answer of another.
    with held(batch, Behaviour(hold=True)), locked(batch.yard, "results", "exclusive"):
        model.release(log.open(batch.prefix))
        batch.wait(lambda: log.count(batch.prefix, ending="answered") == batch.size, "answered")
        batch.wait(lambda: batch.yard.count(ledger.STANDING_BEFORE, "results") >= VICTIMS, "about to commit")
        yield


@contextmanager
def stand_committed(batch: Batch) -> Iterator[None]:
    model, valkey = batch.yard.model, batch.yard.valkey
    with held(batch, Behaviour(hold=True)):
        valkey.send_signal(signal.SIGSTOP)
        try:
            model.release(model.log.open(batch.prefix))
            batch.wait(lambda: batch.count(ledger.ANSWERED) == batch.size, "committed")
            yield
        finally:
            valkey.send_signal(signal.SIGCONT)


@contextmanager
def held(batch: Batch, behaviour: Behaviour) -> Iterator[None]:
    batch.yard.model.behave(batch.prefix, behaviour)
    batch.send()
    batch.wait_for_calls()
    yield
    batch.yard.model.behave(batch.prefix, Behaviour())


STAGES: Final[dict[str, Callable[[Batch], AbstractContextManager[None]]]] = {
    "claimed": stand_claimed,
    "sent": stand_sent,
    "first token": stand_at_first_token,
    "answered": stand_answered,
    "committed": stand_committed,
}


def run(bench: Bench) -> Finding:
    stages = list(STAGES) * (bench.choose(300, 3000) // VICTIMS // len(STAGES))
    bench.random.shuffle(stages)
    with bench.open_yard(YardSettings(concurrency=JOBS_EACH)) as yard:
        kills = sum(kill_at(stage, yard, f"b{number:03d}-", bench.random) for number, stage in enumerate(stages))
        recovery_seconds = yard.recover(bench.choose(90, 1200))
        verdict = yard.check()
    notes = f"{kills} kills, {len(stages) // len(STAGES) * VICTIMS} at each stage ({', '.join(STAGES)})"
    idle = len(stages) * VICTIMS - kills
    wrong = (f"{idle} of the killed had no job at the stage",) if idle else ()
    return Finding(verdict, notes, wrong=wrong, recovery_seconds=recovery_seconds)


def kill_at(stage: str, yard: Yard, prefix: str, chance: Random) -> int:
    """Bring victims to the stage and kill them all; returns how many had a job there."""
    batch = Batch(yard, prefix, VICTIMS * JOBS_EACH)
    victims = start_victims(yard, prefix)
    with STAGES[stage](batch):
        workers = batch.count(ledger.WORKERS)
        for victim in chance.sample(victims, len(victims)):
            victim.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(victim.is_alive() for victim in victims), STAGE_SECONDS, "all victims are dead")
    return workers


def start_victims(yard: Yard, prefix: str) -> list[Part]:
    victims = [yard.start_worker(f"{prefix}{number}", wait=False) for number in range(VICTIMS)]
    for victim in victims:
        yard.wait_until_ready(victim)
    return victims


ROW = Row(1, "kill -9 of workers at every stage", run)
