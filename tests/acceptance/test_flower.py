"""Flower sees what the workers do, by the tasks' own names."""

import json
import time
import urllib.request
from typing import Any

from orchestrator.stack.ports import find_any_port
from tests.acceptance.yard import Reply, Yard, wait_until


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

    def ask_and_look() -> bool:
        """Again and again: what happens before Flower listens for events, it never hears of."""
        sent.extend(yard.send([f"hello {len(sent)}"]))
        time.sleep(0.5)
        return "handle_message" in read_names()

    sent: list[Reply] = []
    wait_until(ask_and_look, seconds=30)
    assert read_names() == {"handle_message"}, "the sweeps would push the users' tasks out of Flower's memory"
    assert set(read_tasks()) <= {reply.task_id for reply in sent}
