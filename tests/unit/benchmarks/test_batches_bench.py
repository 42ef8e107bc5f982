"""The checker of the batches must see what it is there to see: each fault is made by hand here."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from benchmarks.batches.checker import Ledger, Output, Verdict, check, check_output
from benchmarks.batches.footprint import Footprint
from benchmarks.batches.measured import Blow, Measured
from benchmarks.batches.model_server import build_answer

CLEAN = Output(3, (), (), (), ())
LEDGER = Ledger({"succeeded": 3}, results=3, without_result=0, leases=0, outcomes={"succeeded": 3}, calls_on_record={})
ONCE = {1: 1, 2: 1, 3: 1}


def build_row(line: int, **changes: object) -> bytes:
    answer = {"line": line, "state": "succeeded", "content": build_answer(line), "error": None}
    return json.dumps(answer | changes).encode() + b"\n"


def read(*lines: int) -> Output:
    return check_output([build_row(line) for line in lines], 3)


def judge(output: Output = CLEAN, ledger: Ledger = LEDGER, calls: Mapping[int, int] = ONCE) -> Verdict:
    return check(3, output, ledger, calls)


def test_every_line_once_in_order_and_asked_once_is_no_fault() -> None:
    assert read(1, 2, 3) == CLEAN
    verdict = judge()
    assert (verdict.calls, verdict.extra_calls, verdict.explained_calls, verdict.faults) == (3, 0, 0, ())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((1, 2), replace(CLEAN, rows=2, lost=(3,))),
        ((), replace(CLEAN, rows=0, lost=(1, 2, 3))),
        ((1, 2, 2, 3), replace(CLEAN, rows=4, doubled=(2,))),
        ((1, 2, 3, 1), replace(CLEAN, rows=4, doubled=(1,))),
        ((1, 3, 2), replace(CLEAN, out_of_order=(2,))),
        ((1, 2, 3, 4), replace(CLEAN, rows=4, wrong=(4,))),
        ((0, 1, 2, 3), replace(CLEAN, rows=4, wrong=(0,))),
    ],
)
def test_a_line_that_is_not_there_once_in_its_place_is_a_fault(lines: tuple[int, ...], expected: Output) -> None:
    assert read(*lines) == expected
    assert judge(read(*lines)).faults


@pytest.mark.parametrize(
    "changes", [{"state": "failed", "content": None}, {"content": build_answer(1)}, {"content": None}]
)
def test_a_line_that_failed_or_has_anothers_answer_is_wrong(changes: dict[str, object]) -> None:
    output = check_output([build_row(1), build_row(2, **changes), build_row(3)], 3)
    assert output == replace(CLEAN, wrong=(2,))
    assert judge(output).faults == ("1 failed or with another's answer: 2",)


@pytest.mark.parametrize("row", [build_row(2)[:-1], build_row(2)[:-9] + b"\n", b"[2]\n", b'{"line": "2"}\n', b"\n"])
def test_a_row_that_was_cut_off_or_is_none_counts_for_no_line(row: bytes) -> None:
    output = check_output([build_row(1), row, build_row(3)], 3)
    assert output == replace(CLEAN, lost=(2,), unreadable=(2,))
    assert judge(output).faults == ("1 lost: 2", "1 rows that cannot be read: 2")


def test_a_further_call_is_explained_by_the_record_of_its_own_line_and_only_by_it() -> None:
    calls = {1: 1, 2: 3, 3: 1}
    explained = judge(ledger=replace(LEDGER, calls_on_record={2: 3}), calls=calls)
    assert (explained.extra_calls, explained.explained_calls, explained.faults) == (2, 2, ())
    short = judge(ledger=replace(LEDGER, calls_on_record={2: 2, 3: 9}), calls=calls)
    assert (short.extra_calls, short.explained_calls, short.unexplained) == (2, 1, (2,))
    assert short.faults == ("1 called without a record of it: 2",)
    assert judge(calls=calls).unexplained == (2, 2)


def test_a_question_that_no_line_asks_is_an_extra_call_without_a_record() -> None:
    verdict = judge(calls=ONCE | {4: 1})
    assert (verdict.extra_calls, verdict.unexplained) == (1, (4,))


@pytest.mark.parametrize(
    ("ledger", "fault"),
    [
        (replace(LEDGER, states={"succeeded": 4}), "4 jobs instead of 3"),
        (replace(LEDGER, states={"succeeded": 2, "failed": 1}), "2 jobs succeeded instead of 3"),
        (replace(LEDGER, results=2), "2 results instead of 3"),
        (replace(LEDGER, without_result=1), "1 jobs without a result instead of 0"),
        (replace(LEDGER, leases=1), "1 runs still in hand instead of 0"),
    ],
)
def test_a_ledger_that_says_otherwise_is_a_fault(ledger: Ledger, fault: str) -> None:
    assert fault in judge(ledger=ledger).faults


def test_many_lines_of_a_fault_are_counted_and_few_are_named() -> None:
    verdict = judge(replace(CLEAN, lost=tuple(range(1, 8))))
    assert verdict.faults == ("7 lost: 1, 2, 3, 4, 5, …",)


def test_a_kill_that_met_nobody_is_a_fault_of_the_measurement() -> None:
    blow = Blow("beat", 0.5, 2, was_alive=True)
    measured = Measured("with kills", judge(), 1.0, Footprint(), (blow,))
    assert measured.faults == ()
    assert replace(measured, blows=(replace(blow, was_alive=False),)).faults == ("beat had ended before its turn",)
