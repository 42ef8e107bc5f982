"""When a lease is taken away, and when a message is taken for lost."""

import pytest

from orchestrator.jobs.outages import decide_spared_seconds
from orchestrator.jobs.sweeps import Rhythm
from orchestrator.reconcile import BATCH, decide_undelivered

LEASE = 30.0


def test_in_calm_a_lease_that_ran_out_is_taken() -> None:
    assert decide_spared_seconds(Rhythm(LEASE, 5.0), LEASE) == 0.0


@pytest.mark.parametrize("rhythm", [Rhythm(0.0, None), Rhythm(29.9, 5.0), Rhythm(0.0, 20.0)])
def test_after_a_gap_each_lease_has_its_length_anew(rhythm: Rhythm) -> None:
    assert decide_spared_seconds(rhythm, LEASE) is None


def test_sweeps_that_come_seldom_take_what_ran_out_before_the_one_before() -> None:
    assert decide_spared_seconds(Rhythm(0.0, 90.0), LEASE) == 90.0


@pytest.mark.parametrize(
    ("queued", "backlog", "lost"),
    [(0, 0, 0), (10, 0, 10), (10, 10, 0), (10, 12, 0), (10, 7, 3), (5000, 0, BATCH)],
)
def test_jobs_beyond_the_messages_there_are_have_lost_theirs(queued: int, backlog: int, lost: int) -> None:
    assert decide_undelivered(queued, backlog) == lost
