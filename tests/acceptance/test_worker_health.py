"""A worker that lives and does not work: it is seen, and mends itself."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from orchestrator.stack.ports import find_any_port
from tests.acceptance.yard import Yard, build_message, wait_until

SILENT_SECONDS = 2
CATALOG = """
deployments:
  - {{name: counted, provider: openai_compatible, model: m, base_url: "{url}", api_key: none}}
  - {{name: standing, provider: sync, model: m, options: {{adapter: "tests.fakes.poison:standing"}}}}
groups:
  quality: {{deployments: [counted], retries: 0}}
  standing: {{deployments: [standing], retries: 0}}
"""


def read_ready(port: int) -> tuple[int, dict[str, bool]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


@pytest.mark.long
def test_a_deaf_worker_is_seen_and_becomes_itself_anew(either_yard: Yard) -> None:
    """It is made deaf by Celery's own command; RabbitMQ shows no polls, so there a message must wait unheard."""
    yard, port = either_yard, find_any_port()
    yard.environment |= {"LLMYARD_WORKER_SILENT_SECONDS": str(SILENT_SECONDS), "LLMYARD_METRICS_PORT": str(port)}
    # So long that no message comes back meanwhile, as one that waits unheard would.
    yard.environment["LLMYARD_LEASE_SECONDS"] = "30"
    yard.model.delay_seconds = 60
    worker = yard.start_worker("deaf")
    (in_hand,) = yard.send(["in hand"])
    wait_until(lambda: yard.model.calls["in hand"] == 1, seconds=20)
    assert read_ready(port) == (200, {"taking": True, "heartbeat": True})
    (seen,) = yard.rows("select name, node, concurrency from workers")
    assert (seen["node"], seen["concurrency"]) == ("deaf@test", 32)
    assert yard.count("select count(*) from leases where worker = $1", seen["name"]) == 1

    yard.model.delay_seconds = 0
    yard.producer().control.cancel_consumer("celery")
    wait_until(lambda: "Canceling queue celery" in worker.new_log(), seconds=10)
    polls_are_seen = yard.broker_url.startswith("redis")
    unheard = [] if polls_are_seen else yard.send(["unheard"])
    wait_until(lambda: read_ready(port) == (503, {"taking": False, "heartbeat": True}), seconds=10)
    unheard = unheard or yard.send(["unheard"])

    assert {reply.get(timeout=30)["state"] for reply in (in_hand, *unheard)} == {"succeeded"}
    assert worker.exit_status() is None, "the process is the same"
    assert "worker_deaf" in worker.new_log()
    assert yard.count("select max(crash_count) from jobs") == 0, "what it had in hand was handed back"
    assert [row["name"] for row in yard.rows("select name from workers")] == [seen["name"]]


@pytest.mark.long
def test_a_worker_whose_loop_stands_still_keeps_no_message_from_the_others(yard: Yard, tmp_path: Path) -> None:
    """Neither those it took before that was seen, and of which no row was made, nor any that comes later."""
    note = tmp_path / "note"
    Path(yard.environment["LLMYARD_CONFIG"]).write_text(CATALOG.format(url=yard.model.url))
    yard.environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "POISON_FILE": str(note)}
    stuck = yard.start_worker("stuck")
    yard.send_messages([build_message("stand", model="standing")])
    wait_until(note.exists, seconds=20)
    replies = yard.send(["taken at once"])
    time.sleep(3)
    replies += yard.send(["left alone"])
    yard.start_worker("other")
    assert replies[1].get(timeout=3)["state"] == "succeeded"
    assert replies[0].get(timeout=10)["state"] == "succeeded"
    assert stuck.exit_status() is None, "it holds its loop still"
