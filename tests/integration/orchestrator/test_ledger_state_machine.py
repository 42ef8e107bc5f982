"""The real ledger beside one in plain Python: any order of operations, two at once or with a fault at their commit."""

import asyncio
import logging
from collections.abc import Iterator
from itertools import product

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fakes.faulty_database import Fault, HastyLoop
from tests.fakes.ledger_machine import LedgerMachine, World
from tests.fakes.ledger_operations import (
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
    Sweep,
)

ANSWERED, PARKED, CRASHED, STALE = (
    Report(0, "succeeded"),
    Report(0, "parked"),
    Report(0, "crashed"),
    Report(1, "succeeded"),
)
BOTH_ENDED = ReportAll(("succeeded", "failed"))
MEETINGS: dict[str, tuple[Operation, ...]] = {
    "queued": (Deliver(0), DeliverKnown(0), DeliverAll((1, 0)), DeliverAll((0, 1, 0)), Sweep(), Cancel(0)),
    "in hand": (ANSWERED, BOTH_ENDED, PARKED, CRASHED, Renew(), Sweep(), Cancel(0), Deliver(0)),
    "claimed again": (ANSWERED, STALE, BOTH_ENDED, Renew(), Sweep(), Cancel(0)),
    "parked": (ANSWERED, Drain(), SendBack(0), Discard(0), Cancel(0), Deliver(0)),
}
"""Who may meet at a job that was brought so far."""


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        world = World(runner, database_url)
        yield world
        world.close()


@pytest.mark.parametrize("begun", MEETINGS)
def test_whoever_meets_at_a_job_the_one_or_the_other_was_first(world: World, begun: str) -> None:
    for first, second in product(MEETINGS[begun], repeat=2):
        machine = LedgerMachine(world)
        machine.a_job_is_under_way(crashes=0, begun=begun)
        machine.an_hour_passes()
        machine.two_things_happen_at_once(first=first, second=second)
        machine.teardown()


@pytest.mark.parametrize("begun", MEETINGS)
def test_a_fault_at_the_commit_neither_loses_nor_doubles_anything(world: World, begun: str) -> None:
    for operation, fault in product(MEETINGS[begun], Fault):
        machine = LedgerMachine(world)
        machine.a_job_is_under_way(crashes=0, begun=begun)
        machine.an_hour_passes()
        machine.one_thing_happens(operation=operation, fault=fault)
        machine.teardown()


@pytest.mark.timeout(300)
def test_whatever_happens_the_tables_hold_what_they_ought_to(world: World) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(world),
        settings=settings(
            max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
