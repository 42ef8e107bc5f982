"""What the chaos bench writes down outside of everything it breaks, read back."""

import json
from decimal import Decimal
from pathlib import Path

from benchmarks.chaos.behaviour import Behaviour, choose_behaviour
from benchmarks.chaos.calls import CallLog, build_bill
from benchmarks.chaos.recorder import Recorder


def write(path: Path, *lines: dict[str, object], end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(json.dumps(line) for line in lines) + end)


def test_what_was_attempted_but_not_acknowledged_stays_apart(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "enqueued")
    first, second = recorder.attempt("a", "task-a"), recorder.attempt("b")
    recorder.acknowledge(second)
    found = {enqueue.message_id: enqueue for enqueue in recorder.enqueues()}
    assert found["a"].acknowledged_at is None
    assert found["b"].acknowledged_at is not None
    assert (first, found["a"].task_id, found["b"].task_id) == (1, "task-a", None)


def test_a_record_outlives_the_one_who_wrote_it(tmp_path: Path) -> None:
    Recorder(tmp_path / "enqueued").attempt("a")
    assert [enqueue.message_id for enqueue in Recorder(tmp_path / "enqueued").enqueues()] == ["a"]


def test_a_recorder_that_wrote_nothing_has_nothing(tmp_path: Path) -> None:
    assert Recorder(tmp_path / "enqueued").enqueues() == []


def test_a_call_is_open_until_it_ends(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls")
    write(tmp_path / "calls", {"call": 1, "event": "arrived", "question": "a", "at": 1.0})
    assert [call.is_open for call in log.calls()] == [True]
    write(tmp_path / "calls", {"call": 1, "event": "began", "at": 1.5})
    ending = {"call": 1, "event": "answered", "at": 2.0, "status": 200, "bill_usd": "0.25"}
    write(tmp_path / "calls", ending)
    (call,) = log.calls()
    assert (call.is_open, call.began_at, call.ended_at, call.ending) == (False, 1.5, 2.0, "answered")
    assert (call.bill_usd, log.count(ending="answered"), log.open()) == (Decimal("0.25"), 1, [])


def test_every_call_of_a_question_is_one_more(tmp_path: Path) -> None:
    for number, question in enumerate(("a1", "a1", "b1"), start=1):
        write(tmp_path / "calls", {"call": number, "event": "arrived", "question": question, "at": 1.0})
    log = CallLog(tmp_path / "calls")
    assert (log.count(), log.count("a"), log.count("b"), log.count(ending="answered")) == (3, 2, 1, 0)


def test_a_line_that_is_still_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls")
    (tmp_path / "calls").write_text('{"call": 1, "event": "arrived", "que')
    assert log.calls() == []
    write(tmp_path / "calls", end="")
    with (tmp_path / "calls").open("a") as file:
        file.write('stion": "a", "at": 1.0}\n')
    assert [call.question for call in log.calls()] == ["a"]


def test_the_bill_grows_with_what_was_read_and_written() -> None:
    assert build_bill("longer", 0) > build_bill("short", 0)
    assert build_bill("short", 10) - build_bill("short", 0) == Decimal("0.00002")


def test_the_longest_prefix_decides_how_a_call_is_treated() -> None:
    behaviours = {"": Behaviour(delay_seconds=1), "a": Behaviour(status=503), "ab": Behaviour(hold=True)}
    assert choose_behaviour(behaviours, "abc").hold
    assert choose_behaviour(behaviours, "ax").status == 503
    assert choose_behaviour(behaviours, "b").delay_seconds == 1
    assert choose_behaviour({}, "b") == Behaviour()
