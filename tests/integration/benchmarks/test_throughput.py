"""The bench on real servers: what it measures of a small load is what was done.

Only what our own environment can run takes part: ourselves and the floor. The peers have environments of their own, and
`make bench` is what runs them.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.throughput.drain import Drained, Load, measure_drain
from benchmarks.throughput.latency import Pace, measure_latency
from benchmarks.throughput.run import Plan, run
from benchmarks.throughput.scenarios import AT_ONCE
from benchmarks.throughput.stage import Stage
from benchmarks.throughput.systems import FLOOR as FLOOR_ELSEWHERE
from benchmarks.throughput.systems import OURS, Crew

FLOOR = replace(FLOOR_ELSEWHERE, environment="")
CREW = Crew(2, 8)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """In a directory of its own: pytest's are closed to Postgres's account again when another pytest starts."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory,
        Stage(Path(directory)) as stage,
    ):
        yield stage


def assert_is_the_work_of(drained: Drained, load: Load) -> None:
    assert (drained.jobs, drained.calls, drained.is_wrong) == (load.jobs, load.jobs, False)
    assert drained.records == drained.jobs + drained.warm
    assert drained.peak == load.crew.processes * load.crew.in_flight
    assert drained.seconds > load.jobs / drained.peak * load.delay_ms / 1000
    assert drained.cost.workers_ms > 0
    assert drained.cost.wal_bytes > 50
    assert drained.pss_mb > 20


@pytest.mark.timeout(180)
def test_our_own_jobs_are_drained_and_their_whole_record_is_there(stage: Stage) -> None:
    load = Load(CREW, jobs=160, delay_ms=100, deadline_seconds=60)
    drained = measure_drain(stage, OURS, load)
    assert_is_the_work_of(drained, load)
    assert 0 < drained.commits < 10


@pytest.mark.timeout(180)
def test_the_floor_is_drained_with_few_commits(stage: Stage) -> None:
    load = Load(CREW, jobs=160, delay_ms=100, deadline_seconds=60)
    drained = measure_drain(stage, FLOOR, load)
    assert_is_the_work_of(drained, load)
    assert 0 < drained.commits < 0.5


@pytest.mark.timeout(180)
def test_what_is_not_done_in_time_is_told(stage: Stage) -> None:
    drained = measure_drain(stage, FLOOR, Load(CREW, jobs=160, delay_ms=1500, deadline_seconds=2))
    assert (drained.is_complete, drained.is_wrong) == (False, False)
    assert 0 < drained.jobs < 160


@pytest.mark.timeout(180)
def test_latency_is_seen_of_every_job(stage: Stage) -> None:
    (latency,) = measure_latency(stage, OURS, CREW, [Pace(20, 1)])
    assert (latency.answered, latency.asked) == (20, 20)
    assert 0 < latency.p50_ms <= latency.p99_ms < 5000


@pytest.mark.timeout(180)
def test_nobody_is_left_over_and_what_breaks_off_is_told(stage: Stage) -> None:
    lost = replace(FLOOR, commands=lambda binaries, _crew: ((str(binaries / "python"), "-c", "raise SystemExit(3)"),))
    before = find_children()
    record = run(stage, Plan((lost,), frozenset({AT_ONCE.number}), rounds=1, is_short=True, seconds=60))
    assert record.drains == {}
    (trouble,) = record.troubles
    assert "floor" in trouble
    assert "exited with status 3" in trouble
    assert find_children() == before


def find_children() -> set[int]:
    """Whom this process started; whom Postgres starts now and then, such as autovacuum, is its own affair."""
    return {process.pid for process in psutil.Process().children()}
