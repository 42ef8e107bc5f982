"""Row 5: a worker is stopped past its lease, and comes back with its answers when the jobs are no longer its own.

successor    another worker claims the jobs and answers them; then the first one is continued
same worker  nobody else takes jobs (the one that sweeps listens to the maintenance queue only): the worker itself, once
             continued, claims its former jobs anew, and the first run's answers arrive while the second runs go on

Each late write must be rejected, by the run's number and not by the worker's name, and its cost must be kept: ledger
and bill are equal to the cent. That a write was tried, not merely never made, is seen by the attempts it leaves.
"""

import signal
from typing import Final

from benchmarks.chaos import ledger
from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.parts import wait_until
from benchmarks.chaos.yard import Yard, YardSettings, build_ids

JOBS: Final = 40
STEP_SECONDS: Final = 60.0


def run(bench: Bench) -> Finding:
    rounds = bench.choose(1, 10)
    prefixes = [f"{form}{number:02d}-" for form in ("other-", "same-") for number in range(rounds)]
    with bench.open_yard(YardSettings(concurrency=4 * JOBS)) as yard:
        yard.start_beat()
        wrong = [fault for prefix in prefixes for fault in ROUNDS[prefix[0]](yard, prefix)]
        yard.start_worker("last")
        yard.wait_until_done(STEP_SECONDS)
        verdict = yard.check()
    if verdict.ledger_usd != verdict.bill_usd:
        wrong.append("the cost of a late answer was not kept")
    notes = f"{rounds} pauses with a successor, {rounds} with the same worker reclaiming, {JOBS} jobs in hand each"
    return Finding(verdict, notes, wrong=tuple(wrong))


def pause_with_successor(yard: Yard, prefix: str) -> list[str]:
    log, model = yard.model.log, yard.model
    stopped = yard.start_worker(f"{prefix}stopped")
    model.behave(prefix, Behaviour(hold=True))
    yard.send(build_ids(prefix, JOBS))
    wait_until(lambda: log.count(prefix) == JOBS, STEP_SECONDS, "the jobs are in hand")
    stopped.send_signal(signal.SIGSTOP)
    model.behave(prefix, Behaviour())
    successor = yard.start_worker(f"{prefix}successor")
    wait_until(lambda: yard.count(ledger.ANSWERED, prefix) == JOBS, STEP_SECONDS, "the successor has answered")
    model.release(log.open(prefix))
    stopped.send_signal(signal.SIGCONT)
    wait_until(lambda: yard.count(ledger.LATE, prefix) == JOBS, STEP_SECONDS, "the late answers have come")
    faults = find_faults(yard, prefix, ledger.ANSWERED_BY_SECOND_RUN, "answered by another than the second run")
    for worker in (stopped, successor):
        worker.end()
    return faults


def pause_and_reclaim(yard: Yard, prefix: str) -> list[str]:
    log, model = yard.model.log, yard.model
    sweeper = yard.start_worker(f"{prefix}sweeper", queues="maintenance")
    stopped = yard.start_worker(f"{prefix}stopped")
    model.behave(prefix, Behaviour(hold=True))
    yard.send(build_ids(prefix, JOBS))
    wait_until(lambda: log.count(prefix) == JOBS, STEP_SECONDS, "the jobs are in hand")
    stopped.send_signal(signal.SIGSTOP)
    wait_until(lambda: yard.count(ledger.QUEUED, prefix) == JOBS, STEP_SECONDS, "the leases have run out")
    first_calls = log.open(prefix)
    stopped.send_signal(signal.SIGCONT)
    wait_until(lambda: log.count(prefix) == 2 * JOBS, STEP_SECONDS, "the worker has claimed its jobs again")
    model.release(first_calls)
    wait_until(lambda: yard.count(ledger.LATE, prefix) == JOBS, STEP_SECONDS, "the late answers have come")
    faults = find_faults(yard, prefix, ledger.RUNNING, "ended by the first run's late answer")
    faults += find_faults(yard, prefix, ledger.RECLAIMED, "claimed by another worker than the first time")
    model.release(log.open(prefix))
    wait_until(lambda: yard.count(ledger.ANSWERED, prefix) == JOBS, STEP_SECONDS, "the second runs have answered")
    faults += find_faults(yard, prefix, ledger.ANSWERED_BY_SECOND_RUN, "answered by another than the second run")
    for worker in (stopped, sweeper):
        worker.end()
    return faults


ROUNDS: Final = {"o": pause_with_successor, "s": pause_and_reclaim}


def find_faults(yard: Yard, prefix: str, query: str, what: str) -> list[str]:
    others = JOBS - yard.count(query, prefix)
    return [f"{prefix}: {others} jobs were {what}"] if others else []


ROW = Row(5, "SIGSTOP past the lease, then SIGCONT", run)
