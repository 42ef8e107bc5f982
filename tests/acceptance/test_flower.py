"""Flower sees what the workers do, by the tasks' own names."""

import json
import urllib.request
from typing import Any

from orchestrator.stack.ports import find_any_port
from tests.acceptance.yard import Yard, wait_until


def test_flower_shows_the_tasks_by_name(yard: Yard) -> None:
    port = find_any_port()
    yard.start_flower(port)
    yard.start_worker()
    yard.start_beat()

    def read_tasks() -> dict[str, dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tasks", timeout=5) as answer:
            tasks: dict[str, dict[str, Any]] = json.load(answer)
        return tasks

    def read_names() -> set[str]:
        return {task["name"] for task in read_tasks().values() if task["state"] == "SUCCESS"}

    (sent,) = yard.send(["hello"])
    assert sent.get(timeout=30)["state"] == "succeeded"
    wait_until(lambda: {"handle_message", "reconcile_jobs", "drain_failed_requests"} <= read_names(), seconds=15)
    assert read_tasks()[sent.task_id]["name"] == "handle_message"
