"""The shipped batch script on a real Slurm: every way in which Slurm ends a worker, and nothing lost by any."""

import os
import signal

import pytest

from tests.acceptance.yard import wait_until
from tests.slurm.books import Books, describe
from tests.slurm.fleet import CONCURRENCY, Fleet

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]

JOBS = 2000
ANSWERED = "select count(*) from results"
EXPIRED = "select count(*) from runs where outcome = 'expired'"
HANDED_BACK = "select count(*) from runs where outcome = 'handed_back'"
CRASHES = "select sum(crash_count) from jobs"
WORKERS_THAT_CRASHED = "select count(distinct worker) from runs where outcome = 'expired'"


def test_two_thousand_jobs_survive_a_kill_a_walltime_and_a_preemption(fleet: Fleet) -> None:
    yard, cluster, books = fleet.yard, fleet.cluster, Books(fleet.yard)
    yard.model.delay_seconds = 0.8
    fleet.write_settings(LLMYARD_SHUTDOWN_GRACE_SECONDS="0.4")
    fleet.submit(3, "--time=30")
    cluster.query("scontrol", "update", f"JobId={fleet.name(1)}", "TimeLimit=2")
    books.send([f"q{n}" for n in range(JOBS)])

    wait_until(lambda: yard.count(ANSWERED) >= 100, seconds=60)
    fleet.kill(0)
    fleet.preempt(2, seconds=5)
    fleet.start_again(2)
    fleet.wait_until_ready(2, starts=2)
    fleet.wait_until_state(1, "COMPLETED", "")
    assert yard.count(ANSWERED) < JOBS, "all were answered before the last worker was stopped"
    wait_until(lambda: yard.count(ANSWERED) == JOBS, seconds=240)

    wait_until(lambda: not books.close().unheard, seconds=10)
    verdict = books.close()
    print(describe(verdict))
    assert not verdict.faults
    assert verdict.answered == verdict.acknowledged == JOBS
    assert yard.count(HANDED_BACK) > 0
    # What it had claimed ahead dies with it too.
    assert 0 < yard.count(CRASHES) <= 2 * CONCURRENCY
    assert yard.count(WORKERS_THAT_CRASHED) == 1, "only the killed worker's jobs count a crash"


def test_a_worker_at_its_walltime_hands_back_all_it_holds(fleet: Fleet) -> None:
    """SIGTERM comes early enough that Slurm's own end finds nobody. A later one here, so that it holds something."""
    fleet.yard.model.delay_seconds = 600
    fleet.submit(1, "--time=2", "--signal=B:TERM@50")
    fleet.yard.send([f"q{n}" for n in range(CONCURRENCY)])
    wait_until(lambda: sum(fleet.yard.model.calls.values()) == CONCURRENCY, seconds=20)
    fleet.wait_until_state(0, "COMPLETED", "")
    assert fleet.yard.count(HANDED_BACK) == fleet.yard.model.hung_up == CONCURRENCY
    assert fleet.yard.count(CRASHES) == 0, "a planned stop is no crash"
    assert "TIME LIMIT" not in fleet.log(0)


def test_a_preempted_worker_comes_back_under_its_name_and_goes_on(fleet: Fleet) -> None:
    fleet.yard.model.delay_seconds = 600
    fleet.submit(1)
    sent = fleet.yard.send([f"q{n}" for n in range(CONCURRENCY)])
    wait_until(lambda: sum(fleet.yard.model.calls.values()) == CONCURRENCY, seconds=20)
    fleet.preempt(0, seconds=1)
    assert fleet.yard.count(HANDED_BACK) == CONCURRENCY
    assert fleet.yard.count(EXPIRED) == 0

    fleet.yard.model.delay_seconds = 0
    fleet.start_again(0)
    assert {reply.get(timeout=60)["state"] for reply in sent} == {"succeeded"}
    assert fleet.log(0).count(f"slurm-{fleet.array}-0@") >= 2, "its log begins anew, or its name"


def test_a_worker_that_crashes_is_started_again_on_its_node(fleet: Fleet) -> None:
    fleet.submit(1)
    first = fleet.worker_pid(0)
    os.kill(first, signal.SIGKILL)
    fleet.wait_until_ready(0, starts=2)
    assert fleet.worker_pid(0) != first
    (reply,) = fleet.yard.send(["after"])
    assert reply.get(timeout=30)["state"] == "succeeded"
    assert "was ended by SIGKILL, and is started again in 0.5 s" in fleet.log(0)

    fleet.cluster.query("scancel", "--signal=TERM", "--batch", fleet.name(0))
    fleet.wait_until_state(0, "COMPLETED", "")


def test_settings_that_others_can_read_are_refused(fleet: Fleet) -> None:
    fleet.settings.chmod(0o640)
    fleet.submit(1, wait=False)
    fleet.wait_until_state(0, "FAILED", "")
    assert "must be yours, and yours alone to read: chmod 600" in fleet.log(0)
    assert "worker_ready" not in fleet.log(0)
