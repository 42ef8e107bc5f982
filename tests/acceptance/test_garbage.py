"""Nothing that somebody pushes on the broker's list ends the worker, or is lost without a trace."""

import base64
import json
import uuid
from typing import Any

import redis

from tests.acceptance.yard import Reply, Yard, wait_until


def build_entry(raw: bytes, *, task_id: str, content_type: str = "application/json", **changes: Any) -> str:
    """An entry as kombu writes it, with anything changed."""
    entry = {
        "body": base64.b64encode(raw).decode(),
        "content-type": content_type,
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": "handle_message", "id": task_id, "root_id": task_id, "retries": 0},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(entry | changes)


DEEP = b"[[" + b"[" * 50_000 + b"]" * 50_000 + b"],{},{}]"

GARBAGE = {
    "text": "this is not JSON",
    "a list": "[1, 2]",
    "half an envelope": '{"body": "x"}',
    "half a body": build_entry(b"{half", task_id="half"),
    "pickle": build_entry(b"\x80\x04.", task_id="pickle", content_type="application/x-python-serialize"),
    "no call": build_entry(b'"hello"', task_id="no-call"),
    "endless nesting": build_entry(DEEP, task_id="deep"),
    "a wrong body encoding": build_entry(b"[]", task_id="encoding", body="%%%"),
    "another task": build_entry(b"[[],{},{}]", task_id="other", headers={"task": "nothing", "id": "other"}),
    "no headers": build_entry(b"[[],{},{}]", task_id="none", headers={}),
}


def test_garbage_on_the_queue_is_kept_as_evidence_and_the_worker_goes_on(yard: Yard) -> None:
    worker = yard.start_worker()
    with redis.Redis.from_url(yard.redis_url) as client:
        for entry in GARBAGE.values():
            client.lpush("celery", entry)
    wait_until(lambda: yard.count("select count(*) from rejected_messages") == len(GARBAGE), seconds=30)
    assert yard.send(["hello"])[0].get(timeout=30)["state"] == "succeeded"
    assert worker.exit_status() is None

    told = [Reply(yard.redis_url, task_id).get(timeout=5) for task_id in ("half", "pickle", "no-call", "deep")]
    assert {error["exc_type"] for error in told} == {"MessageRejectedError"}
    evidence = {row[0] for row in yard.rows("select evidence from rejected_messages")}
    assert any("this is not JSON" in text for text in evidence)
