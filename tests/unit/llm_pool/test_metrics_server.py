"""A worker's own port: numbers for Prometheus, and whether it is ready."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from llm_pool.status.metrics import open_metrics
from llm_pool.status.metrics_server import MetricsServer


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer(open_metrics(), "127.0.0.1", 0)
    yield server
    server.close()


def ask(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


@pytest.mark.parametrize(("taking", "status"), [(True, 200), (False, 503)])
def test_ready_only_if_every_check_holds(server: MetricsServer, taking: bool, status: int) -> None:
    checks = {"taking": taking, "heartbeat": True}
    server.show_ready(lambda: checks)
    told, body = ask(server, "/ready")
    assert (told, json.loads(body)) == (status, checks)


def test_alive_whatever_the_checks_say(server: MetricsServer) -> None:
    server.show_ready(lambda: {"taking": False})
    assert ask(server, "/health") == (200, '{"alive": true}')


def test_prometheus_is_answered_as_before(server: MetricsServer) -> None:
    before = ask(server, "/metrics")
    server.show_ready(lambda: {"taking": False})
    assert before[0] == 200
    assert ask(server, "/metrics")[1].splitlines()[0] == before[1].splitlines()[0]
