"""A worker's parts as `orchestrator.wiring` puts them together, around what a test brings."""

from llm_pool.call import CompletionPool
from orchestrator.agents.runner import Runner
from orchestrator.group_commit import GroupCommit
from orchestrator.isolation.suspect import SuspectPool
from orchestrator.isolation.suspects import Suspects
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.recorder import Recorder
from orchestrator.workload import Workload
from shared.database import Database


def open_ledger(database: Database) -> GroupCommit:
    return GroupCommit(database, worker="w-1", lease_seconds=30)


def build_recorder(database: Database) -> Recorder:
    return Recorder(database, open_ledger(database))


def build_runner(
    database: Database, pool: CompletionPool, *, suspects: SuspectPool | None = None, slots: int = 64
) -> Runner:
    ledger = open_ledger(database)
    return Runner(
        database,
        pool,
        LeaseKeeper(database, lease_seconds=30),
        Recorder(database, ledger),
        ledger=ledger,
        suspects=suspects or Suspects(lease_seconds=30),
        workload=Workload(slots),
    )
