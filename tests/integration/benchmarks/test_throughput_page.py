"""What the bench makes of its measurements: the best of several rounds, the targets, the page, the command line."""

from dataclasses import replace

import pytest

from benchmarks.throughput.__main__ import choose_numbers, choose_systems
from benchmarks.throughput.costs import Cost
from benchmarks.throughput.drain import Drained
from benchmarks.throughput.environments import LOCKS
from benchmarks.throughput.latency import Latency, Pace
from benchmarks.throughput.page import build_page
from benchmarks.throughput.record import Record
from benchmarks.throughput.run import choose_systems as choose_for_round
from benchmarks.throughput.run import turn
from benchmarks.throughput.scenarios import AT_ONCE, IN_BULK, MANY, SLOW_MODEL, choose_paces
from benchmarks.throughput.systems import BULK, CELERY, FLOOR, OURS, PEERS, SAQ, SYSTEMS, TASKIQ, System
from benchmarks.throughput.targets import check_targets

COST = Cost(workers_ms=1.0, postgres_ms=0.1, redis_ms=0.1, wal_bytes=2000.0)


def build_drained(rate: float) -> Drained:
    return Drained(
        jobs=1000, asked=1000, warm=50, records=1050, seconds=1000 / rate, cost=COST, commits=0.1, pss_mb=200.0,
        peak=128, calls=1000,
    )  # fmt: skip


@pytest.fixture
def record() -> Record:
    record = Record(ceiling=20_000)
    for rate in (900, 1300, 1100):
        record.add(AT_ONCE, OURS, build_drained(rate))
    for system, rate in ((TASKIQ, 1000), (SAQ, 800), (FLOOR, 6000)):
        record.add(AT_ONCE, system, build_drained(rate))
    record.add(SLOW_MODEL, OURS, build_drained(600))
    record.add(SLOW_MODEL, FLOOR, build_drained(640))
    record.add(IN_BULK, BULK, build_drained(3900))
    record.add(IN_BULK, FLOOR, build_drained(6000))
    record.add(MANY, OURS, build_drained(950))
    record.latencies[OURS.name] = [(Pace(5, 8), Latency(3, 9, 40, 40)), (Pace(100, 8), Latency(7, 26, 800, 800))]
    return record


def find_checks(record: Record) -> list[tuple[float, bool]]:
    return [(round(check.figure, 3), check.is_held) for check in check_targets(record)]


def test_each_target_is_a_ratio_of_the_best_rounds(record: Record) -> None:
    assert find_checks(record) == [
        (1.3, True),  # ours / best peer
        (0.938, False),  # 200 ms: ours / floor
        (0.65, True),  # bulk / floor
        (3.9, False),  # bulk / best peer
        (0.95, True),  # 2,000 in flight / ideal
        (200.0, True),  # its memory
        (7.0, True),
        (26.0, False),
        (0.1, True),
    ]


def test_what_was_not_measured_is_no_target() -> None:
    assert list(check_targets(Record(1))) == []


@pytest.mark.parametrize(
    "drained",
    [
        pytest.param(replace(build_drained(100), records=1049), id="a record is missing"),
        pytest.param(replace(build_drained(100), calls=1001), id="asked twice"),
    ],
)
def test_a_record_that_is_missing_and_a_call_too_many_are_wrong(drained: Drained) -> None:
    record = Record(1)
    record.add(AT_ONCE, OURS, drained)
    assert len(record.troubles) == 1
    assert "## What went wrong" in build_page(record, (), has_plot=False)


def test_a_round_that_ran_out_of_time_is_marked_and_not_wrong(record: Record) -> None:
    record.add(AT_ONCE, CELERY, replace(build_drained(50), jobs=500, calls=510, records=600))
    assert record.troubles == []
    (row,) = (
        line for line in build_page(record, (CELERY,), has_plot=False).splitlines() if line.startswith("| Celery")
    )
    assert row.split(" | ")[1] == "25*"


def test_the_page_shows_the_best_round_and_the_slowest_beside_it(record: Record) -> None:
    page = build_page(record, (OURS,), has_plot=True)
    (row, *_) = (line for line in page.splitlines() if line.startswith(f"| {OURS.title}"))
    assert row.split(" | ")[1:4] == ["1,300", "900", "1.00"]
    assert "![jobs a second, and CPU a job](benchmarks.png)" in page
    assert "(ideal: 640 jobs/s)" in page


def test_everybody_comes_first_once() -> None:
    systems = (OURS, FLOOR, TASKIQ)
    assert [turn(systems, number)[0] for number in range(4)] == [OURS, FLOOR, TASKIQ, OURS]
    assert turn((), 1) == ()


def test_a_slow_model_is_given_jobs_that_fill_every_process_to_the_end() -> None:
    assert SLOW_MODEL.build_load(OURS, is_short=False).jobs % 128 == 0
    assert MANY.build_load(OURS, is_short=True).jobs % 2000 == 0
    assert SLOW_MODEL.build_load(CELERY, is_short=False).jobs == 80  # two at a time, for 8 s


def test_nobody_is_paced_beyond_what_it_can_do() -> None:
    assert [pace.rate for pace in choose_paces(CELERY, is_short=False)] == [5]
    assert [pace.rate for pace in choose_paces(OURS, is_short=False)] == [5, 100]


def test_systems_and_scenarios_are_chosen_by_name() -> None:
    assert choose_systems("taskiq, ours") == (OURS, TASKIQ)
    assert choose_numbers("1,latency") == {1, 5}
    with pytest.raises(SystemExit, match="There is no rq"):
        choose_systems("rq")
    with pytest.raises(SystemExit, match="There is no scenario 9"):
        choose_numbers("9")


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_has_its_program_and_its_lock(system: System) -> None:
    assert (PEERS / system.file).exists()
    assert not system.environment or (LOCKS / f"{system.environment}.txt").exists()


def test_later_rounds_are_for_those_on_whom_a_target_hangs() -> None:
    assert list(choose_for_round(AT_ONCE, SYSTEMS, 0)) == [system for system in SYSTEMS if system is not BULK]
    assert CELERY not in choose_for_round(AT_ONCE, SYSTEMS, 1)
    assert TASKIQ in choose_for_round(AT_ONCE, SYSTEMS, 1)
    assert list(choose_for_round(SLOW_MODEL, SYSTEMS, 1)) == [OURS, FLOOR]
