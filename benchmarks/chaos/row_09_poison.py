"""Row 9: jobs that kill their process, block its loop holding the interpreter's lock, or eat memory, among others.

A steady stream of messages goes through two workers that something starts again when they die, first alone, then with
one of each poison. Waits are counted from the enqueueing to the ledger's finish. The first two crashes of a poison take
a worker with all it had in hand, and those jobs wait for a lease; from then on it dies alone. So the 95th percentile
holds while fewer than a twentieth of the messages are in hand at those moments: a stream far thicker than the poison,
as everywhere. The kernel's own killing for want of memory is not provoked: the eater stops itself as the kernel would.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row, list_faults
from benchmarks.chaos.checker import check
from benchmarks.chaos.ledger import LedgerJob
from benchmarks.chaos.yard import CATALOG, Yard, YardSettings, build_ids

RATE: Final = 50.0
HARMS: Final = ("crash", "block", "eat")
POISONS: Final = tuple(f"please {harm}" for harm in HARMS)
MAX_RATIO: Final = 2.0
CRASHES: Final = 5
"""What the page promises, whatever the product's own figure is."""
POISON: Final = """  - {{name: poisonable, provider: sync, model: m, price: free,
     options: {{adapter: "tests.fakes.poison:adapter"}}}}
groups:
  poison: {{deployments: [poisonable], retries: 0}}
"""
FINISHED: Final = """
select message_id, extract(epoch from finished_at)::float8 as finished_at, state
from jobs join messages on job_id = id where finished_at is not null
"""


def run(bench: Bench) -> Finding:
    calm, harmed = (build_ids(kind, int(RATE * bench.choose(*seconds))) for kind, seconds in STREAMS)
    settings = YardSettings(
        lease_seconds=5,
        catalog=CATALOG.replace("groups:\n", POISON),
        environment={"PYTHONPATH": str(Path(__file__).parents[2]), "POISON_FILE": "/dev/null"},
    )
    with bench.open_yard(settings) as yard, supervised(yard, "one", "two") as deaths:
        yard.start_beat()
        yard.model.behave("", Behaviour(delay_seconds=0.2))
        send_steadily(yard, calm, ())
        send_steadily(yard, harmed, POISONS)
        yard.wait_until_done(180)
        evidence = replace(yard.gather(), expected_states=frozenset({"succeeded", "quarantined"}))
        waits = read_waits(yard)
    verdict = check(evidence)
    crashes = {job.message_id: job.crash_count for job in evidence.jobs if job.state == "quarantined"}
    before, after = (find_p95([waits[message] for message in stream if message in waits]) for stream in (calm, harmed))
    notes = (
        f"{len(calm)} messages alone, {len(harmed)} beside {len(HARMS)} poisons: p95 wait {before:.2f} s and "
        f"{after:.2f} s, {after / before:.2f} times; {len(deaths)} workers died; quarantined {len(crashes)}"
    )
    missed = list_faults({"the others waited twice as long": after >= MAX_RATIO * before})
    return Finding(verdict, notes, wrong=tuple(find_misjudged(evidence.jobs)), missed=missed)


def find_misjudged(jobs: Sequence[LedgerJob]) -> Iterator[str]:
    """Innocents that were quarantined, and poisons that were not, or not after the crashes that are promised."""
    for job in jobs:
        if job.message_id not in POISONS:
            if job.state == "quarantined":
                yield f"{job.message_id} is innocent and was quarantined"
        elif job.state != "quarantined":
            yield f"{job.message_id} was not quarantined"
        elif (job.crash_count, job.crashed_runs) != (CRASHES, CRASHES):
            yield f"{job.message_id} was quarantined after {job.crash_count} crashes, of {job.crashed_runs} runs"


STREAMS: Final = (("calm", (15, 60)), ("harmed", (45, 300)))


@contextmanager
def supervised(yard: Yard, *names: str) -> Iterator[list[str]]:
    """Workers that are started again when they die; yields the names of those that did."""
    deaths: list[str] = []
    workers = {name: yard.start_worker(name) for name in names}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for name, worker in workers.items():
                if not worker.is_alive():
                    deaths.append(name)
                    workers[name] = yard.start_worker(name, wait=False)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield deaths
    finally:
        ended.set()
        thread.join()


def send_steadily(yard: Yard, messages: Sequence[str], poisons: Sequence[str]) -> None:
    """The poisons at even distances within the stream's first half."""
    due = {len(messages) * (number + 1) // (2 * len(poisons) + 1): poison for number, poison in enumerate(poisons)}
    started_at = time.monotonic()
    for number, message in enumerate(messages):
        time.sleep(max(0.0, started_at + number / RATE - time.monotonic()))
        if number in due:
            yard.send([due[number]], model="poison")
        yard.send([message])


def read_waits(yard: Yard) -> dict[str, float]:
    sent_at = {enqueue.message_id: enqueue.attempted_at for enqueue in yard.recorder.enqueues()}
    return {row["message_id"]: row["finished_at"] - sent_at[row["message_id"]] for row in yard.rows(FINISHED)}


def find_p95(waits: Sequence[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.95)]


ROW = Row(9, "poison: kills its process, blocks the loop, eats memory", run)
