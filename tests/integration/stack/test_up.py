"""`llmyard up` as a user runs it: a process of its own, with all it starts."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from orchestrator.stack.ports import find_any_port
from orchestrator.stack.services import is_healthy

START_SECONDS = 60.0
Up = subprocess.Popen[str]


@pytest.fixture
def run_up(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Up]]:
    for variable in ("DATABASE_URL", "REDIS_URL", "BROKER_URL"):
        monkeypatch.delenv(variable, raising=False)
    started: list[Up] = []

    def run() -> Up:
        ports = ("--api-port", str(find_any_port()), "--flower-port", str(find_any_port()))
        command = (sys.executable, "-m", "orchestrator.cli.main", "up", "--data", str(data_directory), *ports)
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield run
    for up in started:
        up.terminate()
        up.communicate(timeout=60)
    for process in find_processes(data_directory):
        process.kill()


def find_processes(data_directory: Path) -> list[psutil.Process]:
    """Every process that works in the directory or was told of it."""
    found = []
    for process in psutil.process_iter(["pid", "cwd", "cmdline", "status"]):
        place, command = process.info["cwd"] or "", " ".join(process.info["cmdline"] or ())
        if str(data_directory) in place + command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_for_stack(up: Up, data_directory: Path) -> dict[str, Any]:
    """What it wrote down about itself once everything ran."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and up.poll() is None:
        if (data_directory / "stack.json").exists():
            running: dict[str, Any] = json.loads((data_directory / "stack.json").read_text())
            if running["pid"] == up.pid:
                return running
        time.sleep(0.1)
    up.terminate()
    raise AssertionError(up.communicate()[0])


def find_child(data_directory: Path, name: str) -> int | None:
    children = json.loads((data_directory / "children.json").read_text())
    return next((child["pid"] for child in children if child["name"] == name), None)


def wait_for_another(worker: int, data_directory: Path) -> None:
    deadline = time.monotonic() + 10
    while find_child(data_directory, "worker") in (worker, None):
        assert time.monotonic() < deadline, "the worker was not started again"
        time.sleep(0.1)


def execute(url: str, query: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_it_starts_refuses_a_second_and_stops_with_nothing_left(run_up: Callable[[], Up], data_directory: Path) -> None:
    up = run_up()
    running = wait_for_stack(up, data_directory)
    assert is_healthy(int(running["addresses"]["api"].rpartition(":")[2]))
    assert None not in [find_child(data_directory, name) for name in ("postgres", "valkey", "worker", "beat", "api")]
    second = run_up()
    assert second.communicate(timeout=30)[0].startswith(
        f"llmyard: llmyard up is already running on {data_directory} (pid {up.pid} on "
    )
    assert second.returncode == 1
    up.terminate()
    told = up.communicate(timeout=60)[0]
    assert up.returncode == 0
    assert told.endswith("Stopping …\nStopped.\n")
    for name in ("postgres", "valkey", "worker", "beat", "api", "flower"):
        assert f"/{name}.log" in told
    assert find_processes(data_directory) == []
    assert not (data_directory / "stack.json").exists()


def test_kills_lose_no_data_and_leave_nothing(run_up: Callable[[], Up], data_directory: Path) -> None:
    up = run_up()
    first = wait_for_stack(up, data_directory)
    execute(first["urls"]["database_url"], "CREATE TABLE kept AS SELECT 42 AS value")
    worker = find_child(data_directory, "worker")
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    wait_for_another(worker, data_directory)

    up.kill()
    up.communicate()
    orphans = find_processes(data_directory)
    assert orphans, "a killed parent cannot end its children; the next one does"
    again = run_up()
    second = wait_for_stack(again, data_directory)
    assert not [orphan for orphan in orphans if orphan.is_running()]
    assert second["urls"] == first["urls"]
    assert execute(second["urls"]["database_url"], "SELECT value FROM kept") == 42

    api = find_child(data_directory, "api")
    assert api is not None
    os.kill(api, signal.SIGKILL)
    assert "llmyard: api was ended by SIGKILL. The end of" in again.communicate(timeout=60)[0]
    assert again.returncode == 1
    assert find_processes(data_directory) == []


def test_servers_of_the_user_are_used_instead(
    run_up: Callable[[], Up],
    data_directory: Path,
    postgres_server: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execute(postgres_server, "CREATE DATABASE theirs")
    theirs = postgres_server.replace("/llmyard?", "/theirs?")
    monkeypatch.setenv("DATABASE_URL", theirs)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("LLMYARD_MOCK_WHEN_NO_PROVIDER", "true")
    up = run_up()
    running = wait_for_stack(up, data_directory)
    assert running["urls"] == {"database_url": theirs, "redis_url": redis_url, "broker_url": redis_url}
    assert find_child(data_directory, "postgres") is None
    assert find_child(data_directory, "valkey") is None
    up.terminate()
    told = up.communicate(timeout=60)[0]
    assert "from DATABASE_URL" in told
    assert redis_url not in told
