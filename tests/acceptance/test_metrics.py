"""What Prometheus hears of workers, each on a port of its own."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.stack.children import Child
from orchestrator.stack.ports import find_any_port
from tests.acceptance.yard import Yard

ANSWERED = {"provider": "openai_compatible", "model": "counting-model", "status": "success"}


def start_worker(yard: Yard, name: str, port: int) -> Child:
    yard.environment["LLMYARD_METRICS_PORT"] = str(port)
    return yard.start_worker(name)


def count_answered(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = (sample for family in families for sample in family.samples)
    return sum(each.value for each in samples if each.name == "llm_requests_total" and each.labels == ANSWERED)


def answer(yard: Yard, number: int) -> None:
    for reply in yard.send([f"question {each}" for each in range(number)]):
        reply.get(timeout=30)


def test_a_worker_tells_what_it_counted_until_it_ends(yard: Yard) -> None:
    port = find_any_port()
    worker = start_worker(yard, "worker", port)
    answer(yard, 3)
    assert count_answered(port) == 3
    worker.end()
    with pytest.raises(urllib.error.URLError):
        count_answered(port)


def test_workers_with_one_directory_tell_what_all_of_them_counted(yard: Yard, tmp_path: Path) -> None:
    yard.environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "metrics")
    ports = find_any_port(), find_any_port()
    first, _ = (start_worker(yard, f"worker-{port}", port) for port in ports)
    answer(yard, 8)
    assert [count_answered(port) for port in ports] == [8, 8]
    first.end()
    assert count_answered(ports[1]) == 8
