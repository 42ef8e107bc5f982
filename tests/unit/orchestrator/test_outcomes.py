"""From what the pool did to an outcome, from an outcome to the ledger, and from there to the poller."""

from decimal import Decimal
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from llm_pool.types import ChatMessage
from orchestrator.agents.catalog import AgentProfile
from orchestrator.agents.prompt_builder import build_system_prompt
from orchestrator.agents.runner import build_request, decide_outcome
from orchestrator.jobs.crashes import NOT_HEARD_OF, CrashedRun
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import JobRecord
from orchestrator.jobs.sweeps import Expired
from orchestrator.outcomes import POLITE_REPLY, Failed, HandledElsewhere, Outcome, Parked, RetryLater, Succeeded
from orchestrator.recorder import build_ending
from orchestrator.results import build_answer, build_failure, build_parked, build_quarantine, build_view
from shared import errors
from shared.errors import InputError, LLMBudgetExceededError, LLMError
from tests.builders import NOON, PARKING_ERRORS, build_attempt, build_claim, build_message, build_response

ROBIN = AgentProfile("robin", "Robin", "a seller", model_preference="quality")
ATTEMPTS = (build_attempt(error_type="LLMOverloadedError"),)
FAILING = [errors.LLMContextTooLongError, errors.LLMContentBlockedError, errors.LLMInvalidRequestError]


def build_record(state: JobState, result: dict[str, object] | None = None, request_id: UUID | None = None) -> JobRecord:
    finished_at = NOON if state.is_final else None
    return JobRecord(uuid7(), "default", "task-1", "m-1", state, 1, NOON, finished_at, result, request_id, NOON)


@pytest.mark.parametrize("kind", PARKING_ERRORS)
def test_what_time_may_mend_is_parked_with_what_was_paid(kind: type[LLMError]) -> None:
    outcome = decide_outcome(build_claim(), kind("down", retry_after_seconds=7.0, attempts=ATTEMPTS))
    assert outcome == Parked(kind.__name__, "down", 7.0, ATTEMPTS)


@pytest.mark.parametrize("kind", FAILING)
def test_what_time_cannot_mend_fails_with_what_was_paid(kind: type[LLMError]) -> None:
    outcome = decide_outcome(build_claim(), kind("too long", attempts=ATTEMPTS))
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.error_message, outcome.attempts) == (kind.__name__, "too long", ATTEMPTS)
    assert outcome.result["content"] == POLITE_REPLY


def test_a_purse_that_is_spent_ends_the_job_with_what_was_paid() -> None:
    error = LLMBudgetExceededError("batch:1", Decimal(5), None, attempts=ATTEMPTS)
    outcome = decide_outcome(build_claim(), error)
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.attempts) == ("LLMBudgetExceededError", ATTEMPTS)
    assert outcome.error_message == str(error)


def test_a_budget_that_resets_is_waited_for() -> None:
    error = LLMBudgetExceededError("day", Decimal(5), NOON, retry_after_seconds=7.0, attempts=ATTEMPTS)
    assert decide_outcome(build_claim(), error) == Parked("LLMBudgetExceededError", str(error), 7.0, ATTEMPTS)


def test_the_pool_is_asked_for_the_agents_group_and_tenant() -> None:
    message = build_message(tenant_id="acme", context={"history": [{"role": "assistant", "content": "hi"}]})
    request = build_request(ROBIN, message)
    assert (request.model, request.tenant_id) == ("quality", "acme")
    assert request.messages == (
        ChatMessage("system", build_system_prompt(ROBIN)),
        ChatMessage("assistant", "hi"),
        ChatMessage("user", "hello"),
    )


def test_a_message_may_choose_another_group() -> None:
    assert build_request(ROBIN, build_message(model="fast")).model == "fast"


def test_an_answer_tells_who_gave_it_and_what_it_took() -> None:
    claim = build_claim(build_message(id="m-1"))
    assert build_answer(claim, build_response("fine")) == {
        "job_id": str(claim.job_id),
        "message_id": "m-1",
        "tenant_id": "default",
        "state": "succeeded",
        "content": "fine",
        "model": "a-model",
        "provider": "scripted",
        "deployment": "a",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        "latency_seconds": 0.25,
        "cost_usd": 7.5e-08,
        "attempts": 1,
    }


def test_a_refusal_names_the_field() -> None:
    failure = build_failure(build_claim(), InputError("agent_id", "is off", "name another"))
    assert failure["error"] == {
        "type": "InputError",
        "message": "agent_id: is off; name another",
        "field": "agent_id",
        "problem": "is off",
        "remedy": "name another",
    }


def test_a_waiting_job_says_where_it_waits() -> None:
    request_id = uuid7()
    waiting = build_parked(build_claim(), request_id)
    assert (waiting["state"], waiting["content"], waiting["failed_request_id"]) == (
        "parked",
        POLITE_REPLY,
        str(request_id),
    )


def test_a_quarantined_job_says_why() -> None:
    expired = Expired(uuid7(), "default", "task-1", JobState.QUARANTINED, 5, 5)
    result = build_quarantine(expired, (CrashedRun(1, NOT_HEARD_OF), CrashedRun(5, "was ended by SIGSEGV")))
    assert (result["state"], result["error"]["type"]) == ("quarantined", "Quarantined")
    words = "5 runs ended without an outcome: run 1 was not heard of again; run 5 was ended by SIGSEGV"
    assert result["error"]["message"] == words
    assert result["error"]["runs"][1] == {"run": 5, "last_words": "was ended by SIGSEGV"}


@pytest.mark.parametrize("state", JobState)
def test_a_view_in_every_state(state: JobState) -> None:
    view = build_view(build_record(state))
    assert (view["state"], view["task_id"], view["created_at"]) == (state.value, "task-1", NOON.isoformat())
    assert view["finished_at"] == (NOON.isoformat() if state.is_final else None)
    assert "failed_request_id" not in view


def test_a_view_of_a_parked_job_is_polite_and_says_when_it_is_tried_again() -> None:
    request_id = uuid7()
    view = build_view(build_record(JobState.PARKED, request_id=request_id))
    assert (view["content"], view["next_try_at"]) == (POLITE_REPLY, NOON.isoformat())
    assert view["failed_request_id"] == str(request_id)


def test_a_view_of_a_finished_job_is_its_result() -> None:
    view = build_view(build_record(JobState.SUCCEEDED, {"content": "fine"}))
    assert (view["content"], view["state"]) == ("fine", "succeeded")


ANSWER = {"content": "fine"}
FAILURE = {"error": {"type": "T", "message": "m"}}


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (Succeeded(ANSWER, ATTEMPTS), Ending(JobState.SUCCEEDED, "succeeded", ANSWER, attempts=ATTEMPTS)),
        (Failed(FAILURE, ATTEMPTS), Ending(JobState.FAILED, "failed", FAILURE, "T", "m", ATTEMPTS)),
        (Parked("T", "m", 1.0, ATTEMPTS), Ending(JobState.PARKED, "parked", None, "T", "m", ATTEMPTS)),
        (RetryLater("stopping"), Ending(JobState.QUEUED, "handed_back", error_message="stopping")),
    ],
)
def test_the_ledgers_view_of_an_outcome(outcome: Outcome, ending: Ending) -> None:
    assert build_ending(outcome) == ending


def test_a_claimed_run_is_never_handled_elsewhere() -> None:
    with pytest.raises(AssertionError):
        build_ending(HandledElsewhere())
