"""Row 4: Postgres is restarted, loses every connection, and refuses to write, while messages come and jobs run.

Most messages come over HTTP, spread over all of the faults, each sent again under the same id until it is acknowledged;
some come by Celery, whose acknowledgement is the broker's. Restarts are in order (SIGINT) or without warning (SIGQUIT:
crash recovery), at moments chosen by the seed, 5 to 40 s apart; in the short form 3 to 7 s. Then all connections are
terminated every half second for a while, then the server is read-only (12 s; long: a minute).

A run whose answer could not be written for longer than its lease may be given to somebody else, so extra calls are
allowed, each with its run row; answers that are no answer (neither taken nor to be sent again) are not.
"""

import asyncio
import signal
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.chaos import ledger
from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.http_door import Answers, HttpDoor, describe_answers, find_improper
from benchmarks.chaos.parts import comes_about, wait_until
from benchmarks.chaos.yard import Yard, YardSettings, build_ids, fetch

ANSWER_SECONDS: Final = 0.5
"""Of the model, so that every fault meets runs at every stage."""
TERMINATE: Final = """
select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
"""
BY_CELERY: Final = 10
"""Messages at each fault that come by that door."""
TERMINATION_SECONDS: Final = 0.5
"""From one to the next."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What is done, and for how long."""

    restarts: int
    shortest_seconds: float
    """Between two restarts."""
    longest_seconds: float
    terminations: int
    read_only_seconds: float

    @property
    def seconds(self) -> float:
        """Of all of it together, about."""
        restarting = self.restarts * ((self.shortest_seconds + self.longest_seconds) / 2 + 1)
        return restarting + self.terminations * TERMINATION_SECONDS + self.read_only_seconds


SHORT: Final = Faults(5, 3, 7, terminations=12, read_only_seconds=12)
LONG: Final = Faults(20, 5, 40, terminations=60, read_only_seconds=60)


def run(bench: Bench) -> Finding:
    faults = LONG if bench.is_long else SHORT
    with bench.open_yard(YardSettings(lease_seconds=5)) as yard, HttpDoor(yard) as door:
        yard.model.behave("", Behaviour(delay_seconds=ANSWER_SECONDS))
        workers = [yard.start_worker(name) for name in ("one", "two")]
        yard.start_beat()
        yard.start_api()
        submitting = door.submit_over(faults.seconds, build_ids("m", bench.choose(1000, 5000)))
        restart_repeatedly(bench, yard, faults)
        terminate_repeatedly(yard, faults)
        refuse_writing(yard, faults)
        started_at = time.monotonic()
        answers = submitting.result()
        comes_about(lambda: not yard.count(ledger.OPEN), 60)
        recovery_seconds = time.monotonic() - started_at
        yard.wait_until_done(30)
        verdict = yard.check()
        dead = [worker.name for worker in workers if not worker.is_alive()]
    notes = (
        f"{faults.restarts} restarts, all connections terminated {faults.terminations} times, "
        f"read-only for {faults.read_only_seconds:.0f} s; over HTTP {describe_answers(answers)}"
    )
    wrong = (*find_improper(answers), *(f"worker {name} ended" for name in dead), *find_untouched(answers))
    return Finding(verdict, notes, wrong=wrong, recovery_seconds=recovery_seconds)


def restart_repeatedly(bench: Bench, yard: Yard, faults: Faults) -> None:
    for number in range(faults.restarts):
        by_celery(yard, f"restart{number:02d}-")
        time.sleep(bench.random.uniform(faults.shortest_seconds, faults.longest_seconds))
        yard.postgres.send_signal(bench.random.choice((signal.SIGINT, signal.SIGQUIT)))
        wait_until(lambda: not yard.postgres.is_alive(), 60, "the database is down")
        time.sleep(bench.random.uniform(0, 1))
        yard.start_postgres()


def terminate_repeatedly(yard: Yard, faults: Faults) -> None:
    for number in range(faults.terminations):
        yard.rows(TERMINATE)
        if number % 8 == 0:
            by_celery(yard, f"terminated{number:02d}-")
        time.sleep(TERMINATION_SECONDS)


def refuse_writing(yard: Yard, faults: Faults) -> None:
    set_read_only(yard, "on")
    by_celery(yard, "read-only")
    time.sleep(faults.read_only_seconds)
    set_read_only(yard, "off")


def set_read_only(yard: Yard, value: str) -> None:
    url = f"{yard.database_url}&default_transaction_read_only=off"
    asyncio.run(fetch(url, f"alter system set default_transaction_read_only = {value}"))
    asyncio.run(fetch(url, "select pg_reload_conf()"))


def by_celery(yard: Yard, prefix: str) -> None:
    yard.send(build_ids(prefix, BY_CELERY))


def find_untouched(answers: Answers) -> tuple[str, ...]:
    return () if answers[503] else ("no submission met a fault",)


ROW = Row(4, "Postgres restarted, its connections terminated, read-only", run)
