"""One line of the output file for one line of the input; pure."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic_core import to_json

from orchestrator.batches.records import Answer, Shape
from orchestrator.jobs.lifecycle import JobState

_OK: Final = 200


def write_line(shape: Shape, answer: Answer) -> bytes:
    """JSON with its line's end."""
    return to_json(_WRITERS[shape](answer)) + b"\n"


def _write_openai(answer: Answer) -> dict[str, Any]:
    """As OpenAI's batch output files have it."""
    body = answer.body
    job_id = body["job_id"].replace("-", "")
    response = error = None
    if body["state"] == JobState.SUCCEEDED:
        response = {"status_code": _OK, "request_id": body["job_id"], "body": _write_completion(job_id, answer)}
    else:
        error = {"code": body["error"]["type"], "message": body["error"]["message"]}
    return {"id": f"batch_req_{job_id}", "custom_id": answer.custom_id, "response": response, "error": error}


def _write_completion(job_id: str, answer: Answer) -> dict[str, Any]:
    body = answer.body
    message: dict[str, Any] = {"role": "assistant", "content": body["content"], "refusal": None}
    if calls := body.get("tool_calls"):
        message |= {"content": body["content"] or None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": body["finish_reason"]}
    return {
        "id": f"chatcmpl-{job_id}",
        "object": "chat.completion",
        "created": answer.created,
        "model": body["model"],
        "choices": [choice],
        "usage": _write_usage(body["usage"]),
        "llmyard": {name: body.get(name) for name in ("provider", "deployment", "attempts", "cost_usd")},
    }


def _write_usage(usage: Mapping[str, int] | None) -> dict[str, int] | None:
    if usage is None:
        return None
    return {**usage, "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"]}


def _write_flat(answer: Answer) -> dict[str, Any]:
    """For people and data frames: every line has the same fields."""
    body = answer.body
    has_answer = body["state"] == JobState.SUCCEEDED
    usage = body.get("usage") or {}
    return {
        "line": answer.line,
        "id": answer.custom_id,
        "content": body["content"] if has_answer else None,
        "error": None if has_answer else f"{body['error']['type']}: {body['error']['message']}",
        "state": body["state"],
        "model": body.get("model"),
        "finish_reason": body.get("finish_reason"),
        "tool_calls": body.get("tool_calls"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cost_usd": body.get("cost_usd"),
    }


_WRITERS: Mapping[Shape, Callable[[Answer], dict[str, Any]]] = {
    Shape.OPENAI: _write_openai,
    Shape.PROMPTS: _write_flat,
}
