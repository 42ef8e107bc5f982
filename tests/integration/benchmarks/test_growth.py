"""The growth bench on a ledger of a few hundred jobs, and what it makes of its figures."""

import asyncpg
import pytest

from benchmarks.growth import backlog
from benchmarks.growth.__main__ import PARTS, choose_parts
from benchmarks.growth.backlog import CALLS, Times, build_section, measure_all, pick
from benchmarks.growth.idle import Rest
from benchmarks.growth.idle import build_section as build_idle_section
from benchmarks.growth.programs import NAMES
from benchmarks.growth.report import build_report
from benchmarks.growth.section import Check, Section
from benchmarks.growth.start_up import time_help


async def test_every_operation_is_timed_at_every_size(database_url: str, superuser: asyncpg.Connection) -> None:
    figures = await measure_all(database_url, (200, 400))
    assert list(figures) == [200, 400]
    for each in figures.values():
        assert each.keys() == CALLS.keys()
        assert all(0 < times.p50 <= times.p99 for times in each.values())
    states = dict(await superuser.fetch("select state, count(*) from jobs group by state"))
    assert states.keys() >= {"parked", "succeeded"}, "each kind of row is there to be looked through"
    assert sum(states.values()) == 400


def test_a_percentile_is_a_time_that_was_measured() -> None:
    assert [pick([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.51, 0.99, 1.0)] == [1.0, 2.0, 3.0, 4.0, 4.0]


def build_figures(times: Times) -> dict[str, Times]:
    return dict.fromkeys(CALLS, times)


@pytest.mark.parametrize(("p99", "is_held"), [(0.004, True), (0.0041, False)])
def test_a_claim_may_take_twice_as_long_and_no_longer(p99: float, is_held: bool) -> None:
    small, large = Times(0.001, 0.001), Times(0.001, p99)
    section = build_section(
        {
            1000: build_figures(small),
            backlog.COMPARED: build_figures(Times(0.001, 0.002)),
            1_000_000: build_figures(large),
        }
    )
    assert [check.is_held for check in section.checks] == [is_held] * len(backlog.BOUND)


def test_at_rest_our_programs_count_together_and_the_servers_apart() -> None:
    rests = {**dict.fromkeys(NAMES, Rest(0.3, 100.0)), "Postgres": Rest(5.0, 900.0)}
    section = build_idle_section(rests, 60.0)
    assert [check.figure for check in section.checks] == pytest.approx([0.9, 300.0])
    assert all(check.is_held for check in section.checks)


def test_a_figure_is_held_at_its_bound() -> None:
    assert Check("most", 1.0, 1.0).is_held
    assert Check("least", 0.9, 0.9, is_least=True).is_held
    assert not Check("least", 0.89, 0.9, is_least=True).is_held


def test_the_page_shows_what_was_missed() -> None:
    page = build_report([Section("Rest", "Nothing to do.", ("a", "b"), [("x", "y")], (Check("cpu", 2.0, 1.0),))])
    assert "| cpu | 2.00 | ≤ 1 | **missed** |" in page
    assert "## Rest\n\nNothing to do.\n\n| a | b |" in page


def test_parts_are_taken_in_their_order() -> None:
    assert choose_parts("") == list(PARTS)
    assert choose_parts("backlog,idle") == ["idle", "backlog"]
    with pytest.raises(SystemExit, match="There is no lunch"):
        choose_parts("lunch")


def test_the_command_line_starts() -> None:
    seconds, cpu_seconds = time_help()
    assert cpu_seconds > 0
    assert seconds > 0
