"""The lines that come out."""

import json
from typing import Any

from openai.types.chat import ChatCompletion

from orchestrator.batches.output_lines import write_line
from orchestrator.batches.records import Answer, Shape
from orchestrator.results import build_answer, build_failure
from shared.errors import LLMInvalidRequestError
from tests.builders import build_claim, build_response

CLAIM = build_claim()
ANSWERED = build_answer(CLAIM, build_response("fine"))
FAILED = build_failure(CLAIM, LLMInvalidRequestError("too hot"))


def write(shape: Shape, body: dict[str, Any]) -> dict[str, Any]:
    line = write_line(shape, Answer(7, "a", body, 1_700_000_000))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    written: dict[str, Any] = json.loads(line)
    return written


def test_an_answer_as_openai_s_own_client_reads_it() -> None:
    written = write(Shape.OPENAI, ANSWERED)
    completion = ChatCompletion.model_validate(written["response"]["body"], strict=True)
    assert (written["custom_id"], written["error"], written["response"]["status_code"]) == ("a", None, 200)
    assert written["response"]["request_id"] == str(CLAIM.job_id)
    assert completion.choices[0].message.content == "fine"
    assert completion.usage
    assert (completion.created, completion.usage.total_tokens) == (1_700_000_000, 5)


def test_tool_calls() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    written = write(Shape.OPENAI, ANSWERED | {"content": "", "finish_reason": "tool_calls", "tool_calls": [call]})
    message = ChatCompletion.model_validate(written["response"]["body"], strict=True).choices[0].message
    assert message.tool_calls
    assert (message.content, message.tool_calls[0].id) == (None, "c")


def test_a_failure_in_openai_s_form() -> None:
    written = write(Shape.OPENAI, FAILED)
    assert written["response"] is None
    assert written["error"] == {"code": "LLMInvalidRequestError", "message": "too hot"}


def test_flat_lines_have_the_same_fields_whatever_happened() -> None:
    answered, failed = write(Shape.PROMPTS, ANSWERED), write(Shape.PROMPTS, FAILED)
    assert answered.keys() == failed.keys()
    assert (answered["line"], answered["id"], answered["content"], answered["error"]) == (7, "a", "fine", None)
    assert (failed["content"], failed["error"]) == (None, "LLMInvalidRequestError: too hot")
    assert (answered["prompt_tokens"], answered["completion_tokens"]) == (3, 2)


def test_an_answer_of_a_provider_that_tells_no_usage() -> None:
    body = ANSWERED | {"usage": None, "cost_usd": None}
    assert write(Shape.OPENAI, body)["response"]["body"]["usage"] is None
    assert write(Shape.PROMPTS, body)["prompt_tokens"] is None
