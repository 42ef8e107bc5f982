"""The checker of the chaos bench must see what it is there to see: each fault is made by hand here."""

from dataclasses import replace
from decimal import Decimal

import pytest

from benchmarks.chaos.calls import Call, build_bill
from benchmarks.chaos.checker import Evidence, Verdict, check
from benchmarks.chaos.ledger import LedgerJob, Reply
from benchmarks.chaos.recorder import Enqueue

ENQUEUE = Enqueue(1, "a", attempted_at=1.0, acknowledged_at=1.1, task_id="a-task")
CALL = Call(1, "a", arrived_at=2.0, began_at=2.5, ended_at=3.0, ending="answered", status=200, bill_usd=build_bill("a"))
JOB = LedgerJob(
    message_id="a",
    job_id="j",
    state="succeeded",
    crash_count=0,
    runs=1,
    calls_on_record=1,
    crashed_runs=0,
    stale_runs=0,
    results=1,
    answering_run=1,
    content="answer to a",
    cost_usd=build_bill("a"),
)
REPLY = Reply("a-task", "SUCCESS", "answer to a")
GOOD = Evidence([ENQUEUE], [CALL], [JOB], [REPLY])


def test_a_message_that_was_answered_once_and_told_is_no_fault() -> None:
    verdict = check(GOOD)
    assert verdict == Verdict(1, 1, 1, (), (), (), (), 1, 0, (), build_bill("a"), build_bill("a"))
    assert verdict.faults == ()


@pytest.mark.parametrize("state", ["queued", "running", "parked"])
def test_an_acknowledged_message_in_no_final_state_is_lost(state: str) -> None:
    open_job = replace(JOB, state=state, results=0, content=None)
    assert check(replace(GOOD, jobs=[open_job])).lost == ("a",)


def test_an_acknowledged_message_that_never_became_a_job_is_lost() -> None:
    verdict = check(replace(GOOD, jobs=[]))
    assert (verdict.lost, verdict.answered) == (("a",), 0)
    assert any(fault.startswith("1 lost: a") for fault in verdict.faults)


def test_a_message_that_was_never_acknowledged_cannot_be_lost() -> None:
    verdict = check(Evidence([replace(ENQUEUE, acknowledged_at=None)], [], [], []))
    assert (verdict.attempted, verdict.acknowledged, verdict.faults) == (1, 0, ())


def test_a_message_that_became_two_jobs_is_duplicated() -> None:
    second = replace(JOB, job_id="k", state="queued", results=0, content=None)
    assert check(replace(GOOD, jobs=[JOB, second])).duplicated == ("a",)


def test_a_job_with_two_results_is_duplicated() -> None:
    assert check(replace(GOOD, jobs=[replace(JOB, results=2)])).duplicated == ("a",)


def test_two_pollers_who_were_told_different_answers_are_a_duplicate() -> None:
    second = replace(ENQUEUE, number=2, task_id="a-other")
    verdict = check(
        replace(GOOD, enqueues=[ENQUEUE, second], replies=[REPLY, Reply("a-other", "SUCCESS", "another answer")])
    )
    assert verdict.duplicated == ("a",)


def test_a_job_that_nobody_sent_is_unexpected() -> None:
    ghost = replace(JOB, message_id="b", content="answer to b", cost_usd=Decimal(0))
    assert check(replace(GOOD, jobs=[JOB, ghost])).unexpected == ("b",)


def test_a_call_that_nobody_asked_for_is_unexpected_and_unexplained() -> None:
    verdict = check(replace(GOOD, calls=[CALL, replace(CALL, number=2, question="b")]))
    assert (verdict.unexpected, verdict.unexplained) == (("b",), ("b",))


@pytest.mark.parametrize("state", ["failed", "quarantined", "cancelled", "discarded"])
def test_a_final_state_that_the_row_does_not_explain_is_unexpected(state: str) -> None:
    ended = replace(JOB, state=state)
    verdict = check(replace(GOOD, jobs=[ended], replies=[]))
    assert (verdict.unexpected, verdict.answered) == (("a",), 0)
    explained = replace(GOOD, jobs=[ended], replies=[], expected_states=frozenset({"succeeded", state}))
    assert check(explained).unexpected == ()


def test_somebody_elses_answer_is_unexpected() -> None:
    wrong = replace(JOB, content="answer to b")
    verdict = check(replace(GOOD, jobs=[wrong], replies=[replace(REPLY, content="answer to b")]))
    assert (verdict.unexpected, verdict.answered) == (("a",), 0)


@pytest.mark.parametrize("reply", [None, Reply("a-task", "FAILURE", None), Reply("a-task", "SUCCESS", "another")])
def test_a_poller_who_was_not_told_the_answer_went_unheard(reply: Reply | None) -> None:
    assert check(replace(GOOD, replies=[reply] if reply else [])).unheard == ("a",)


@pytest.mark.parametrize(
    ("state", "told"),
    [("failed", "FAILURE"), ("quarantined", "FAILURE"), ("discarded", "FAILURE"), ("cancelled", "REVOKED")],
)
def test_a_poller_of_a_job_that_ended_without_an_answer_must_be_told_so(state: str, told: str) -> None:
    ended = replace(
        GOOD, jobs=[replace(JOB, state=state, content="sorry")], expected_states=frozenset({"succeeded", state})
    )
    assert check(replace(ended, replies=[Reply("a-task", told, None)])).faults == ()
    other = "REVOKED" if told == "FAILURE" else "FAILURE"
    for reply in (Reply("a-task", "PARKED", None), Reply("a-task", other, None)):
        assert check(replace(ended, replies=[reply])).unheard == ("a",)
    assert check(replace(ended, replies=[])).unheard == ("a",)


@pytest.mark.parametrize("state", ["failed", "quarantined", "discarded", "cancelled", "parked", "running"])
def test_a_success_that_was_told_of_a_job_without_one_is_unexpected(state: str) -> None:
    ended = replace(
        GOOD, jobs=[replace(JOB, state=state, content="sorry")], expected_states=frozenset({"succeeded", state})
    )
    assert check(ended).unexpected == ("a",)


def test_a_success_that_was_told_of_no_job_at_all_is_unexpected() -> None:
    assert check(replace(GOOD, jobs=[])).unexpected == ("a",)


def test_whoever_polls_a_job_that_goes_on_need_not_have_been_told() -> None:
    verdict = check(replace(GOOD, jobs=[replace(JOB, state="parked", results=0, content=None)], replies=[]))
    assert (verdict.lost, verdict.unheard) == (("a",), ())


def test_a_further_call_is_explained_by_a_further_run_and_only_by_one() -> None:
    calls = [replace(CALL, number=number) for number in (1, 2, 3)]
    explained = check(replace(GOOD, calls=calls, jobs=[replace(JOB, runs=3, calls_on_record=3)]))
    assert (explained.extra_calls, explained.explained_calls, explained.faults) == (2, 2, ())
    verdict = check(replace(GOOD, calls=calls, jobs=[replace(JOB, runs=2, calls_on_record=2)]))
    assert (verdict.extra_calls, verdict.explained_calls, verdict.unexplained) == (2, 1, ("a",))


def test_runs_of_one_message_do_not_explain_the_calls_of_another() -> None:
    other = replace(JOB, message_id="b", content="answer to b", runs=5, calls_on_record=5, cost_usd=Decimal(0))
    sent = [ENQUEUE, replace(ENQUEUE, number=2, message_id="b", task_id=None)]
    calls = [CALL, replace(CALL, number=2), replace(CALL, number=3, question="b")]
    verdict = check(Evidence(sent, calls, [JOB, other], [REPLY]))
    assert (verdict.extra_calls, verdict.unexplained) == (1, ("a",))


def test_a_ledger_that_holds_more_than_was_charged_is_a_fault() -> None:
    assert check(replace(GOOD, jobs=[replace(JOB, cost_usd=Decimal(1))])).faults != ()
