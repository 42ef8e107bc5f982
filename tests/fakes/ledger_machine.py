"""Plays operations on the real ledger and on the oracle, and holds the two together.

After every step the tables hold what the oracle holds, every answer is the one it gave, and at the end of each
example the sweeps alone bring every job to its end.
"""

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import asyncpg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.jobs.lifecycle import MAX_CRASHES, JobState
from shared.database import create_engine
from tests.fakes.faulty_database import Fault, FaultyDatabase, KilledError, Pause
from tests.fakes.ledger_operations import (
    OUTCOMES,
    Cancel,
    Deliver,
    DeliverAll,
    DeliverKnown,
    Discard,
    Drain,
    Operation,
    Renew,
    Report,
    ReportAll,
    SendBack,
    Submit,
    Sweep,
    do,
)
from tests.fakes.ledger_oracle import SLOTS, Ledger, Oracle

READ = """
    select message_id, jobs.id, jobs.state, jobs.run, crash_count, finished_at is not null as is_finished,
           leases.run as leased_run, results.run as answered_by, results.body as result,
           failed_requests.state as request,
           array(select number from runs where runs.job_id = jobs.id order by number) as numbers,
           array(select case when ended_at is not null then outcome end from runs
                 where runs.job_id = jobs.id order by number) as runs,
           array(select attempts.run from attempts where attempts.job_id = jobs.id order by attempts.run) as paid
    from jobs join messages on messages.job_id = jobs.id
    left join leases on leases.job_id = jobs.id
    left join results on results.job_id = jobs.id
    left join failed_requests on failed_requests.job_id = jobs.id
"""
# Nothing but the statements themselves keeps these from being there.
ORPHANS = " union all ".join(
    f"select job_id from {table} where not exists (select from jobs where id = job_id)"
    for table in ("messages", "runs", "leases", "attempts", "results")
)
LEASE_RUNS_OUT = "update leases set lease_until = now() - interval '1 second' where job_id = $1"
AN_HOUR_PASSES = (
    "update leases set lease_until = now() - interval '1 second'",
    "update jobs set dispatched_at = dispatched_at - interval '1 hour' where state = 'queued'",
    "update failed_requests set next_try_at = next_try_at - interval '1 hour'",
    """
    update drains set passed_at = passed_at - interval '1 hour', answered_at = answered_at - interval '1 hour',
                      turned_away_at = turned_away_at - interval '1 hour'
    """,
)
SOMEBODY_WAITS = "select exists (select from pg_locks where not granted)"
EMPTY = (
    "truncate jobs, messages, runs, leases, attempts, results, waiting_tasks, failed_requests",
    "delete from drains",
)
slots = st.sampled_from(SLOTS)
operations = st.one_of(
    st.builds(Submit, slots, is_new=st.booleans()),
    st.builds(Deliver, slots, is_new=st.booleans()),
    st.builds(DeliverKnown, slots),
    st.builds(DeliverAll, st.lists(slots, min_size=1, max_size=3).map(tuple)),
    *(st.builds(Report, st.integers(0, 3), st.sampled_from(sorted(OUTCOMES))),) * 2,
    st.builds(ReportAll, st.lists(st.sampled_from(("succeeded", "failed")), min_size=2, max_size=4).map(tuple)),
    st.builds(Renew),
    *(st.builds(Sweep),) * 2,
    st.builds(Drain),
    st.builds(SendBack, slots),
    st.builds(Discard, slots),
    st.builds(Cancel, slots),
)

# After each step the lease is made to run out.
BEGINNINGS: dict[str, tuple[Operation, ...]] = {
    "queued": (),
    "in hand": (DeliverKnown(0),),
    "claimed again": (DeliverKnown(0), Sweep(), DeliverKnown(0)),
    "parked": (DeliverKnown(0), Report(0, "parked")),
}


class World:
    """What an example plays in; made once, emptied for each."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        self.run = runner.run
        self.database = FaultyDatabase(create_engine(url), create_engine(url))
        self.superuser: asyncpg.Connection = self.run(asyncpg.connect(url))
        self.run(ensure_default_tenant(self.database))

    def execute(self, statement: str, *parameters: object) -> None:
        self.run(self.superuser.execute(statement, *parameters))

    def close(self) -> None:
        self.run(self.superuser.close())
        self.run(self.database.aclose())


class LedgerMachine(RuleBasedStateMachine):
    """Two jobs at a time, any number of workers, a fault at every commit."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.ledger = Ledger(world.database)
        self.oracle = Oracle()
        self.is_settled = True
        """Nothing is under way: the last step was as it ought to be."""

    @initialize(crashes=st.sampled_from((0, 1, MAX_CRASHES - 1)), begun=st.sampled_from(sorted(BEGINNINGS)))
    def a_job_is_under_way(self, crashes: int, begun: str) -> None:
        for statement in EMPTY:
            self.world.execute(statement)
        self.happen(Submit(0))
        for _ in range(crashes):
            self.happen(DeliverKnown(0), Fault.KILLED)
            self.a_lease_runs_out(0)
            self.happen(Sweep())
        for operation in BEGINNINGS[begun]:
            self.happen(operation)
            self.a_lease_runs_out(0)

    @rule(operation=operations, fault=st.sampled_from(Fault))
    def one_thing_happens(self, operation: Operation, fault: Fault) -> None:
        self.happen(operation, fault)

    @rule(first=operations, second=operations)
    def two_things_happen_at_once(self, first: Operation, second: Operation) -> None:
        aimed = [operation.aim(self.ledger) for operation in (first, second)]
        if None in aimed:
            return
        self.is_settled = False
        pair = [operation for operation in aimed if operation]
        answers = self.world.run(self._do_both(*pair))
        tables = self.read()
        possible = [oracle for oracle in self._foresee(pair, answers) if agrees(oracle, tables)]
        assert possible, f"neither order of {pair} gives {answers} and {tables}"
        self.oracle = possible[0]
        self.is_settled = True

    @rule(slot=slots)
    def a_lease_runs_out(self, slot: int) -> None:
        name = self.ledger.messages[slot].id
        if name in self.oracle.jobs:
            self.oracle.jobs[name].is_overdue = True
            self.world.execute(LEASE_RUNS_OUT, self.ledger.ids[name])

    @rule()
    def an_hour_passes(self) -> None:
        for statement in AN_HOUR_PASSES if self.oracle.jobs else ():
            self.world.execute(statement)
        for job in self.oracle.jobs.values():
            job.is_overdue = True
            job.is_undelivered = job.state is JobState.QUEUED

    def teardown(self) -> None:
        """Whatever happened: time, the sweeps and one worker bring every job to its end."""
        if not self.is_settled:
            return
        self.an_hour_passes()
        self.happen(Sweep())
        for slot in SLOTS:
            if self.ledger.messages[slot].id in self.oracle.find(JobState.PARKED):
                self.happen(SendBack(slot))
            if self.ledger.messages[slot].id in self.oracle.find(JobState.QUEUED):
                self.happen(DeliverKnown(slot))
                self.happen(Report(0, "succeeded"))
        tables = self.read()
        assert all(row["is_finished"] for row in tables.values()), tables

    def happen(self, operation: Operation, fault: Fault = Fault.NONE) -> None:
        aimed = operation.aim(self.ledger)
        if aimed is None:
            return
        self.is_settled = False
        was_parked = self.oracle.find(JobState.PARKED)
        answer, is_told = self.world.run(self._do(aimed, fault))
        tables = self.read()
        if not is_told:
            answer = frozenset(name for name in was_parked if tables[name]["state"] == "queued")
        expected = None
        for _ in range(count_commits(aimed, fault)):
            expected = aimed.apply(self.oracle, answer)
        assert not is_told or answer == expected
        assert {name: job.read() for name, job in self.oracle.jobs.items()} == without_details(tables)
        self.is_settled = True

    async def _do(self, operation: Operation, fault: Fault) -> tuple[Any, bool]:
        self.world.database.fault = fault
        try:
            return await do(operation, self.ledger), True
        except (KilledError, ConnectionResetError):
            return None, False

    async def _do_both(self, first: Operation, second: Operation) -> list[Any]:
        """The second begins before the first commits, and comes as far as it can without that."""
        self.world.database.pause = pause = Pause()
        one = asyncio.create_task(do(first, self.ledger))
        await pause.is_reached.wait()
        two = asyncio.create_task(do(second, self.ledger))
        # Nothing tells of a lock that is waited for.
        while not two.done() and not await self.world.superuser.fetchval(SOMEBODY_WAITS):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
        pause.is_over.set()
        return await asyncio.gather(one, two)

    def _foresee(self, pair: list[Operation], answers: list[Any]) -> Iterator[Oracle]:
        """The ledger after either order, as far as it gives the same answers."""
        for one, other in ((0, 1), (1, 0)):
            for operation in pair[one].variants(pair[other]):
                for next_one in pair[other].variants(pair[one]):
                    oracle = deepcopy(self.oracle)
                    is_same = operation.apply(oracle, answers[one]) == answers[one]
                    if is_same and next_one.apply(oracle, answers[other]) == answers[other]:
                        yield oracle

    def read(self) -> dict[str, Any]:
        rows = self.world.run(self.world.superuser.fetch(READ))
        tables = {row["message_id"]: dict(row) for row in rows}
        assert not self.world.run(self.world.superuser.fetch(ORPHANS))
        assert len(tables) == len(rows), "one result, one lease and one failed request for a job at most"
        for name, row in tables.items():
            self.ledger.ids[name] = row["id"]
            check(row)
            if row["is_finished"]:
                final = row["state"], row["run"], row["result"]
                assert self.ledger.ended.setdefault(name, final) == final, "a final state never changes"
        return tables


def count_commits(operation: Operation, fault: Fault) -> int:
    """How often it was done, seen from the tables."""
    if fault is Fault.ROLLED_BACK:
        return int(operation.is_patient)
    return 2 if fault is Fault.REPLY_LOST and operation.is_patient else 1


def check(row: dict[str, Any]) -> None:
    """What holds of any job, whatever the oracle says."""
    state = JobState(row["state"])
    assert row["is_finished"] == state.is_final == (row["answered_by"] is not None)
    assert row["leased_run"] == (row["run"] if state is JobState.RUNNING else None)
    assert row["numbers"] == list(range(1, row["run"] + 1))
    assert row["runs"].count(None) == (state is JobState.RUNNING)
    assert (row["request"] == "parked") == (state is JobState.PARKED)
    assert row["request"] != "replaying" or not state.is_final
    assert row["request"] != "answered" or state is JobState.SUCCEEDED
    assert 0 <= row["crash_count"] <= MAX_CRASHES
    assert (row["crash_count"] == MAX_CRASHES) == (state is JobState.QUARANTINED)
    assert len(set(row["paid"])) == len(row["paid"])


def without_details(tables: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            column: value for column, value in row.items() if column not in ("message_id", "id", "numbers", "result")
        }
        for name, row in tables.items()
    }


def agrees(oracle: Oracle, tables: dict[str, Any]) -> bool:
    return {name: job.read() for name, job in oracle.jobs.items()} == without_details(tables)
