"""Several processes with one directory for their metrics: whoever is asked answers for all of them."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_pool.status.metrics import open_metrics
from llm_pool.status.metrics_server import MetricsServer
from shared.errors import ConfigurationError
from shared.settings import child_environment

Process = subprocess.Popen[str]
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

# Counts so many calls, of which one is still with the provider, and lives until it is told otherwise.
PROCESS = """
import sys
from pathlib import Path
from llm_pool.catalog import Deployment
from llm_pool.status.metrics import open_metrics

metrics = open_metrics(Path(sys.argv[1]))
metrics.watch([Deployment("a", "mock", "m")])
for _ in range(int(sys.argv[2])):
    metrics.count_request("a", "success")
    metrics.observe_latency("a", 0.3)
metrics.change_active("a", 1)
metrics.show_quota("a", "requests_per_minute", 100, int(sys.argv[2]))
print("counted", flush=True)
sys.stdin.readline()
"""
ASKED = """
import sys
from pathlib import Path
from llm_pool.status.metrics import open_metrics

print(open_metrics(Path(sys.argv[1])).expose().body.decode())
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[[int], Process]]:
    started: list[Process] = []

    def run(calls: int) -> Process:
        process = launch(PROCESS, directory, str(calls))
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def launch(code: str, directory: Path, *arguments: str) -> Process:
    environment = child_environment({"PROMETHEUS_MULTIPROC_DIR": str(directory)})
    command = (sys.executable, "-c", code, str(directory), *arguments)
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask_another(directory: Path) -> Series:
    """A process that has just begun, as its labels and values."""
    return parse(launch(ASKED, directory).communicate(timeout=30)[0])


def parse(text: str) -> Series:
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def get(shown: Series, name: str, **labels: str) -> float:
    return shown[name, frozenset(labels.items())]


def test_three_processes_are_added_up_and_the_dead_keep_what_they_counted(
    start: Callable[[int], Process], directory: Path
) -> None:
    processes = [start(calls) for calls in (3, 4, 5)]
    shown = ask_another(directory)
    assert get(shown, "llm_requests_total", provider="mock", model="m", status="success") == 12
    assert get(shown, "llm_request_latency_seconds_count", provider="mock", model="m") == 12
    assert get(shown, "llm_request_latency_seconds_bucket", provider="mock", model="m", le="0.5") == 12
    assert get(shown, "llm_request_latency_seconds_bucket", provider="mock", model="m", le="0.25") == 0
    assert get(shown, "llm_active_requests", provider="mock") == 3
    assert get(shown, "llm_quota_remaining", deployment="a", kind="requests_per_minute") == 5
    processes[0].kill()
    processes[0].communicate()
    shown = ask_another(directory)
    assert get(shown, "llm_requests_total", provider="mock", model="m", status="success") == 12
    assert get(shown, "llm_active_requests", provider="mock") == 2


def test_a_server_answers_over_http_until_it_is_closed() -> None:
    metrics = open_metrics()
    metrics.count_request(None, "error")
    server = MetricsServer(metrics, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        shown = parse(answer.read().decode())
    assert get(shown, "llm_requests_total", provider="none", model="none", status="error") == 1
    with pytest.raises(ConfigurationError, match=rf"^LLMYARD_METRICS_PORT is {server.port}, which cannot be listened"):
        MetricsServer(metrics, "127.0.0.1", server.port)
    server.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)
