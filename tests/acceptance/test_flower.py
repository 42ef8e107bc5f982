"""Flower sees what the workers do, by the tasks' own names."""

import json
import time
import urllib.request
from typing import Any

from orchestrator.stack.ports import find_any_port
from tests.acceptance.yard import Yard, wait_until


def test_flower_shows_the_tasks_by_name(yard: Yard) -> None:
    port = find_any_port()
    yard.start_flower(port)
    yard.start_worker()
    yard.start_beat()
    time.sleep(2)  # a few sweeps

    def read_tasks() -> dict[str, dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tasks", timeout=5) as answer:
            tasks: dict[str, dict[str, Any]] = json.load(answer)
        return tasks

    def read_names() -> set[str]:
        return {task["name"] for task in read_tasks().values() if task["state"] == "SUCCESS"}

    (sent,) = yard.send(["hello"])
    assert sent.get(timeout=30)["state"] == "succeeded"
    wait_until(lambda: read_names() == {"handle_message"}, seconds=15)
    assert list(read_tasks()) == [sent.task_id], "the sweeps would push the users' tasks out of Flower's memory"
