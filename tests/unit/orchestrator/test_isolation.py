"""What worker, warden and ward say to each other, and who is a suspect."""

from uuid import UUID

import pytest

from llm_pool.types import ChatMessage, CompletionRequest, JsonFormat, Tool, ToolCall
from orchestrator.isolation.distrust import DISTRUST_SECONDS, Distrust
from orchestrator.isolation.suspect import choose_wait_seconds, is_suspect
from orchestrator.isolation.suspects import describe_end
from orchestrator.isolation.wire import (
    Answered,
    Beat,
    Ended,
    Question,
    Refused,
    Started,
    Surprised,
    dump_answer,
    dump_beat,
    dump_end,
    dump_question,
    dump_refusal,
    dump_start,
    dump_surprise,
    read_question,
    read_told,
)
from orchestrator.jobs.lifecycle import MAX_CRASHES
from shared.errors import (
    InputError,
    LLMContextTooLongError,
    LLMError,
    LLMRateLimitedError,
    LLMUnavailableError,
    NotFoundError,
)
from tests.builders import build_attempt, build_response
from tests.fakes.moving_clock import MovingClock

EVERYTHING = CompletionRequest(
    "fast",
    (ChatMessage("assistant", "ü\n😀", tool_calls=(ToolCall("1", "look", "{}"),)), ChatMessage("user", "hi")),
    tenant_id="default",
    timeout_seconds=3.5,
    temperature=0.25,
    stop=("end",),
    tools=(Tool("look", "looks", {"type": "object", "properties": {"at": {"type": "string"}}}),),
    json_format=JsonFormat({"type": "object"}),
    metadata={"a": "b"},
)


@pytest.mark.parametrize(
    ("runs_foreign_code", "told"), [(False, [False, False, True, True]), (True, [False, True, True, True])]
)
def test_two_crashes_make_a_suspect_and_one_of_what_runs_foreign_code(
    runs_foreign_code: bool, told: list[bool]
) -> None:
    assert [is_suspect(crashes, runs_foreign_code=runs_foreign_code) for crashes in range(4)] == told


@pytest.mark.parametrize(("runs_foreign_code", "tries"), [(False, 3), (True, 4)])
def test_a_suspect_is_tried_in_its_own_process_several_times_before_it_is_given_up(
    runs_foreign_code: bool, tries: int
) -> None:
    asked = [crashes for crashes in range(MAX_CRASHES) if is_suspect(crashes, runs_foreign_code=runs_foreign_code)]
    assert len(asked) == tries


def test_a_group_whose_code_killed_a_process_is_distrusted_for_a_while() -> None:
    clock = MovingClock()
    distrust = Distrust(clock)
    assert not distrust.holds("fast")
    distrust.note("fast")
    clock.seconds += DISTRUST_SECONDS - 1
    assert distrust.holds("fast")
    assert not distrust.holds("quality")
    distrust.note("fast")
    clock.seconds += DISTRUST_SECONDS - 1
    assert distrust.holds("fast"), "each death begins it anew"
    clock.seconds += 1
    assert not distrust.holds("fast")


def test_each_crash_beyond_the_second_makes_the_next_wait_longer() -> None:
    assert [choose_wait_seconds(crashes, lease_seconds=30) for crashes in range(5)] == [0, 0, 0, 10, 20]


def test_a_question_arrives_as_it_was_asked() -> None:
    question = Question(UUID(int=1), 30.0, EVERYTHING)
    line = dump_question(question)
    assert line.count(b"\n") == 1
    assert read_question(line) == question


def test_what_is_told_arrives() -> None:
    assert read_told(dump_start(4711)) == Started(4711)
    assert read_told(dump_beat()) == Beat()
    assert read_told(dump_surprise(ValueError("secret"))) == Surprised("ValueError")


def test_an_answer_arrives_with_its_attempts_and_cost() -> None:
    response = build_response("two\nlines")
    line = dump_answer(response)
    assert line.count(b"\n") == 1
    assert read_told(line) == Answered(response)


@pytest.mark.parametrize(
    "error",
    [
        LLMUnavailableError("All providers unavailable: first refused", attempts=(build_attempt(error_type="T"),)),
        LLMRateLimitedError("slow down", retry_after_seconds=1.25, attempts=(build_attempt(),)),
        LLMContextTooLongError("too long"),
    ],
)
def test_a_pools_error_is_raised_again_with_everything_it_knew(error: LLMError) -> None:
    told = read_told(dump_refusal(error))
    assert isinstance(told, Refused)
    assert isinstance(told.error, type(error))
    assert str(told.error) == str(error)
    assert (told.error.attempts, told.error.retry_after_seconds) == (error.attempts, error.retry_after_seconds)


@pytest.mark.parametrize("kind", [InputError, NotFoundError])
def test_the_callers_own_mistake_is_raised_again(kind: type[InputError]) -> None:
    told = read_told(dump_refusal(kind("model", "is not there", "name another")))
    assert isinstance(told, Refused)
    assert type(told.error) is kind
    assert str(told.error) == "model: is not there; name another"


def test_the_end_is_heard_behind_an_answer_that_was_cut_off() -> None:
    said = dump_answer(build_response("long"))[:-20] + dump_end(-9)
    cut_off, end = said.splitlines(keepends=True)
    with pytest.raises(ValueError, match="Invalid JSON"):
        read_told(cut_off)
    assert read_told(end) == Ended(-9)


@pytest.mark.parametrize("line", [b"", b"\n", b".", b"hello\n", b"+12"])
def test_what_says_nothing_is_passed_over(line: bytes) -> None:
    assert read_told(line) is None


@pytest.mark.parametrize(
    ("status", "silent_seconds", "words"),
    [
        (-11, 0.1, "was ended by SIGSEGV"),
        (0, 0.1, "exited with status 0"),
        (1, 24.2, "exited with status 1 after 24 s of silence"),
        (-40, 0.1, "was ended by signal 40"),
    ],
)
def test_the_last_words_say_how_it_ended(status: int, silent_seconds: float, words: str) -> None:
    assert describe_end(status, silent_seconds) == words
