"""One real mlx_lm.server for the whole session, with a tiny random model: it needs no network and no model file."""

import importlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.stack.ports import find_any_port

MAKE_TINY_MODEL = Path(__file__).parents[2] / "scripts" / "make_tiny_model.py"
START_SECONDS = 60


@pytest.fixture(scope="session")
def mlx_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL with `/v1`, as an OpenAI client wants it; the model's name there is `default_model`."""
    skip_without_mlx()
    directory = tmp_path_factory.mktemp("mlx")
    model = directory / "model"
    subprocess.run([sys.executable, MAKE_TINY_MODEL, model], check=True)
    port = find_any_port()
    with (directory / "server.log").open("wb") as log:
        server = start_server(model, port, log.fileno())
        try:
            wait_until_healthy(server, f"http://127.0.0.1:{port}/health", directory / "server.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(timeout=10)


def skip_without_mlx() -> None:
    try:
        for module in ("mlx.core", "mlx_lm"):
            importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"mlx wheels exist for Linux x86_64 and Apple silicon only: {error}")


def start_server(model: Path, port: int, output: int) -> subprocess.Popen[bytes]:
    offline = {"HF_HOME": str(model), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    arguments = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--temp", "1.0"]
    return subprocess.Popen(
        [sys.executable, "-m", "mlx_lm", "server", *arguments],
        env={**os.environ, **offline},
        stdout=output,
        stderr=output,
    )


def wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"mlx_lm.server did not start within {START_SECONDS} s:\n{log.read_text()[-2000:]}")
