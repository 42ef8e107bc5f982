"""Runs a real model server on a tiny random model, which needs no network and no model file."""

import importlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

START_SECONDS = 60
SCRIPTS = Path(__file__).parents[1] / "scripts"


def skip_without(modules: Sequence[str], reason: str) -> None:
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{reason}: {error}")


@contextmanager
def run_server(
    arguments: Sequence[str], health_url: str, log_file: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """`arguments` follow `python -m`; what it says goes to `log_file`."""
    command = [sys.executable, "-m", *arguments]
    with log_file.open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=log, stderr=log)
        try:
            _wait_until_healthy(server, health_url, log_file)
            yield
        finally:
            server.terminate()
            server.wait(timeout=10)


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log_file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start within {START_SECONDS} s:\n{log_file.read_text()[-2000:]}")
