"""The chaos table: a row that missed something cannot look like one that held."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import BEGIN, END, choose_rows, choose_status, run_row, write_between_marks
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.checker import Verdict
from benchmarks.chaos.rows import ROWS
from benchmarks.chaos.table import HEADINGS, Line, build_cells, build_report, describe, merge_reports

VERDICT = Verdict(3, 3, 3, (), (), (), (), 4, 1, (), Decimal("0.1"), Decimal("0.2"))
ROW = Row(1, "kills", lambda _: Finding(VERDICT, "3 kills"))


def build_line(finding: Finding) -> Line:
    return Line(ROW, finding, seconds=1.0)


def test_a_row_without_faults_held() -> None:
    cells = dict(zip(HEADINGS, build_cells(build_line(Finding(VERDICT, "n", recovery_seconds=2.0))), strict=True))
    assert (cells["result"], cells["lost"], cells["extra calls"], cells["explained"]) == ("held", "0", "1", "1")
    assert (cells["cost in ledger"], cells["server's bill"], cells["recovery"]) == ("$0.100000", "$0.200000", "2.0 s")


@pytest.mark.parametrize(
    "finding",
    [
        Finding(replace(VERDICT, lost=("a",)), "n"),
        Finding(replace(VERDICT, unexplained=("a",)), "n"),
        Finding(VERDICT, "n", wrong=("an innocent was quarantined",)),
        Finding(VERDICT, "n", missed=("too slow",)),
        Finding(None, "n", missed=("too slow",)),
    ],
)
def test_a_row_with_a_fault_failed_and_says_why(finding: Finding) -> None:
    line = build_line(finding)
    assert build_cells(line)[-1] == "**failed**"
    assert len(build_cells(line)) == len(HEADINGS)
    assert "**Missed:**" in describe(line)


@pytest.mark.parametrize(
    "finding",
    [
        Finding(replace(VERDICT, lost=("a",)), "n"),
        Finding(None, "n", wrong=("an innocent was quarantined",)),
        Finding(None, "n", is_broken_off=True),
    ],
)
def test_what_is_wrong_fails_on_any_machine(finding: Finding) -> None:
    good = Finding(VERDICT, "n")
    assert choose_status([good, finding], is_lenient=True) == 1


def test_a_missed_rate_fails_only_where_the_machine_is_ours() -> None:
    slow = Finding(VERDICT, "n", missed=("too slow",))
    assert [choose_status([slow], is_lenient=is_lenient) for is_lenient in (True, False)] == [0, 1]


def test_a_row_that_this_machine_cannot_run_neither_held_nor_failed() -> None:
    finding = Finding(None, "needs a C compiler", is_not_run=True)
    assert build_cells(build_line(finding))[-1] == "not run"
    assert choose_status([finding], is_lenient=False) == 0


def test_a_row_that_breaks_off_failed(tmp_path: Path) -> None:
    def break_off(_: Bench) -> Finding:
        raise TimeoutError("nobody came")

    line = run_row(Row(9, "breaks", break_off), Bench(tmp_path))
    assert build_cells(line)[-1] == "**failed**"
    assert "nobody came" in describe(line)


def test_a_seed_repeats_its_choices_and_a_row_has_its_own(tmp_path: Path) -> None:
    def draw(seed: int, row: int) -> float:
        bench = Bench(tmp_path, seed=seed)
        bench.begin(row)
        return bench.random.random()

    assert draw(1, 1) == draw(1, 1)
    assert len({draw(1, 1), draw(2, 1), draw(1, 2)}) == 3


def test_each_row_has_a_number_of_its_own_in_order() -> None:
    numbers = [row.number for row in ROWS]
    assert numbers == sorted(set(numbers))


def test_only_the_wanted_rows_run_and_an_unknown_one_is_refused() -> None:
    assert [row.number for row in choose_rows("6,1")] == [1, 6]
    assert list(choose_rows("")) == list(ROWS)
    with pytest.raises(SystemExit, match="no row 99"):
        choose_rows("99")


def test_the_table_of_one_form_is_replaced_and_the_page_around_it_stays(tmp_path: Path) -> None:
    page = tmp_path / "chaos.md"
    tables = [f"{BEGIN.format(form=form)}\nold {form}\n{END.format(form=form)}\n" for form in ("short", "long")]
    page.write_text(f"before\n{tables[0]}between\n{tables[1]}after\n")
    report = build_report([build_line(Finding(VERDICT, "n"))], seed=7, is_long=True)
    write_between_marks(page, "long", report)
    text = page.read_text()
    assert text.startswith(f"before\n{tables[0]}between\n")
    assert text.endswith("after\n")
    assert "old long" not in text
    assert "seed 7" in text


def test_rows_that_were_not_run_again_stay_in_the_table() -> None:
    old = build_report([build_numbered(1, "first"), build_numbered(11, "old")], seed=1, is_long=True)
    new = build_report([build_numbered(11, "new"), build_numbered(2, "second")], seed=2, is_long=True)
    merged = merge_reports(old, new)
    assert merged.startswith(new.partition("\n\n")[0])
    figures, notes = merged.split("\n\n")[1:]
    assert [line.split(" | ")[0] for line in figures.splitlines()[2:]] == ["| 1", "| 2", "| 11"]
    assert [line.split(": ")[1].split(" (")[0] for line in notes.splitlines()] == ["first", "second", "new"]


def build_numbered(number: int, notes: str) -> Line:
    return Line(Row(number, "kills", ROW.run), Finding(VERDICT, notes), seconds=1.0)
