"""Who is gone is told of this machine's own processes only, and only when it is certain."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.liveness import process_names
from orchestrator.liveness.process_names import build_worker_name, find_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux marks its start and its processes' count")
ORIGIN = build_worker_name().rpartition(":")[0]


@pytest.fixture
def living() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_who_has_ended_is_gone(living: subprocess.Popen[bytes]) -> None:
    name = f"{ORIGIN}:{living.pid}"
    assert find_gone([name]) == []
    living.kill()
    living.wait()
    assert find_gone([name]) == [name]


def test_who_is_stopped_is_not_gone(living: subprocess.Popen[bytes]) -> None:
    living.send_signal(signal.SIGSTOP)
    assert find_gone([f"{ORIGIN}:{living.pid}"]) == []


def test_whoever_had_our_name_is_gone() -> None:
    assert find_gone([build_worker_name()]) == [build_worker_name()]


@pytest.mark.parametrize("origin", ["elsewhere/00000000", ORIGIN.partition("/")[0], ORIGIN + "0", ""])
def test_of_others_nothing_is_known(living: subprocess.Popen[bytes], origin: str) -> None:
    """Though no process here has their number, or this very one has it."""
    living.kill()
    living.wait()
    assert find_gone([f"{origin}:{living.pid}", f"{origin}:{os.getpid()}", f"{ORIGIN}:x", "w-1"]) == []


@pytest.mark.parametrize("unreadable", ["_START_OF_KERNEL", "_COUNT_OF_PROCESSES"])
def test_without_a_mark_nobody_is_gone(unreadable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_names, unreadable, Path("/nowhere"))
    assert build_worker_name() == f"{ORIGIN.partition('/')[0]}:{os.getpid()}"
    assert find_gone([build_worker_name()]) == []
