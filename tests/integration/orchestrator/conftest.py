"""A runner on the test's own ledger, asking a pool that follows a script."""

from collections.abc import Callable

import pytest

from orchestrator.agents.runner import Runner
from orchestrator.jobs.leases import LeaseKeeper
from orchestrator.recorder import Recorder
from shared.database import Database
from tests.fakes.scripted_pool import ScriptedPool
from tests.ledger import Jobs

MakeRunner = Callable[[ScriptedPool], Runner]


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def make_runner(database: Database) -> MakeRunner:
    def make(pool: ScriptedPool) -> Runner:
        return Runner(database, pool, LeaseKeeper(database, lease_seconds=30), Recorder(database), worker="w-1")

    return make
