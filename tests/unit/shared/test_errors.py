"""The tree of errors: what its drawing says of a class is what the class does."""

import inspect
import pickle
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from shared import errors
from shared.errors import (
    InputError,
    JobFailedError,
    LLMBudgetExceededError,
    LLMError,
    LLMOverloadedError,
    LLMSchemaMismatchError,
    LLMStreamBrokenError,
    LLMTransientError,
    LLMUnavailableError,
    LLMYardError,
    NotFoundError,
)
from tests.builders import build_attempt

FLAG = {"yes": True, "no": False, "if the group says so": False}
"""A class itself says no where its group may say yes."""
ROW = re.compile(r"[├└]── (LLM\w+Error) {2,}(yes|no) {2,}(yes|no|if the group says so) {2,}(yes|no)")


def read_table() -> dict[str, tuple[bool, bool, bool]]:
    rows = ROW.findall(errors.__doc__ or "")
    return {name: (FLAG[retries], FLAG[falls_back], FLAG[parks]) for name, retries, falls_back, parks in rows}


def concrete_errors() -> dict[str, type[LLMError]]:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LLMError)]
    return {kind.__name__: kind for kind in classes if kind not in (LLMError, LLMTransientError)}


def test_each_class_does_what_the_drawing_says() -> None:
    flags = {name: (kind.is_retryable, kind.falls_back, kind.parks) for name, kind in concrete_errors().items()}
    assert read_table() == flags


def test_the_drawing_names_every_class() -> None:
    defined = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LLMYardError)}
    drawn = set(re.findall(r"\w+Error", errors.__doc__ or ""))
    assert defined - drawn == {LLMTransientError.__name__}


def test_one_tree() -> None:
    defined = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert all(issubclass(kind, LLMYardError) for kind in defined)


SAYS_MORE = {LLMBudgetExceededError, LLMSchemaMismatchError, LLMStreamBrokenError}
"""Their messages are made of what they carry."""


@pytest.mark.parametrize("kind", set(concrete_errors().values()) - SAYS_MORE)
def test_a_failed_call_carries_what_was_tried(kind: type[LLMError]) -> None:
    attempts = [build_attempt()]
    error = kind("down", retry_after_seconds=3.0, attempts=attempts)
    assert (str(error), error.retry_after_seconds, error.attempts) == ("down", 3.0, tuple(attempts))


def test_a_stream_that_broke_carries_why_and_what_had_come() -> None:
    cause = LLMOverloadedError("down", retry_after_seconds=3.0)
    error = LLMStreamBrokenError(cause, "fin", attempts=[build_attempt()])
    assert str(error) == "the stream broke after 3 characters: down"
    assert (error.__cause__, error.partial_text, error.retry_after_seconds) == (cause, "fin", 3.0)
    assert error.attempts == (build_attempt(),)


def test_a_spent_budget_says_whose_it_is_and_when_it_resets() -> None:
    midnight = datetime(2026, 1, 2, tzinfo=UTC)
    error = LLMBudgetExceededError("tenant:acme", Decimal(10), midnight, retry_after_seconds=60.0)
    assert str(error) == (
        "the budget of tenant:acme, 10 USD, has too little left for what this call may cost; it resets at "
        "2026-01-02T00:00:00+00:00, and a lower max_tokens holds less of it"
    )  # fmt: skip
    assert (error.account, error.limit_usd, error.resets_at) == ("tenant:acme", Decimal(10), midnight)
    assert "does not reset" in str(LLMBudgetExceededError("call", Decimal(1), None))


def test_an_answer_of_another_shape_carries_what_was_said() -> None:
    error = LLMSchemaMismatchError("no JSON", content="Sure!", attempts=[build_attempt()])
    assert (str(error), error.content, error.attempts) == ("no JSON", "Sure!", (build_attempt(),))


def test_an_outage_carries_where_it_is_kept() -> None:
    assert (LLMUnavailableError().request_id, str(LLMUnavailableError())) == (None, "All providers unavailable")
    assert LLMUnavailableError(request_id="r-1").request_id == "r-1"


def test_an_input_error_reads_field_problem_remedy() -> None:
    error = NotFoundError("agent_id", "no agent 'x'", "name another")
    assert str(error) == "agent_id: no agent 'x'; name another"
    assert error.as_dict() == {"field": "agent_id", "problem": "no agent 'x'", "remedy": "name another"}
    assert isinstance(error, InputError)


def test_what_a_celery_caller_gets_can_be_made_again_from_its_text() -> None:
    error = pickle.loads(pickle.dumps(JobFailedError("T: m")))
    assert (type(error), error.args) == (JobFailedError, ("T: m",))
