"""With real processes: a program that is kept alive, one that must not be, and who hears a signal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.stack.kept_alive import KeptProgram
from orchestrator.stack.programs import build_kept_command
from orchestrator.stack.restarts import RestartPolicy

NOTES_ITS_PID = "import os, signal, sys; print(os.getpid(), file=open('pids', 'a')); "
EXITS_WHEN_TOLD = "[signal.signal(number, lambda *_: sys.exit(7)) for number in (1, 2, 3, 15)]; "
LIVES = "import signal, sys; " + EXITS_WHEN_TOLD + NOTES_ITS_PID + "signal.pause()"
PROVES = "os.write(int(os.environ['LLMYARD_PLANNED_END_FD']), b'.'); "
KILLS_ITSELF = NOTES_ITS_PID + "os.kill(os.getpid(), signal.SIGKILL)"
IMPATIENT = RestartPolicy(most_deaths=2, first_delay_seconds=0.01)


@contextmanager
def kept(directory: Path, program: str) -> Iterator[subprocess.Popen[bytes]]:
    command = build_kept_command((sys.executable, "-c", program))
    with (directory / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=directory, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


def read_pids(directory: Path) -> list[int]:
    """Of each life so far."""
    file = directory / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def lives_at_least(directory: Path, count: int) -> Callable[[], bool]:
    return lambda: len(read_pids(directory)) >= count


def test_a_killed_program_is_started_again(tmp_path: Path) -> None:
    with kept(tmp_path, LIVES):
        wait_until(lives_at_least(tmp_path, 1))
        os.kill(read_pids(tmp_path)[0], signal.SIGKILL)
        wait_until(lives_at_least(tmp_path, 2))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_goes_on_to_the_program_whose_end_is_ours(tmp_path: Path, number: signal.Signals) -> None:
    with kept(tmp_path, LIVES) as process:
        wait_until(lives_at_least(tmp_path, 1))
        process.send_signal(number)
        assert process.wait(timeout=5) == 7
    assert len(read_pids(tmp_path)) == 1
    assert not (tmp_path / "said").read_text(), "the end it was asked for is no death"


def test_a_program_that_ends_as_planned_has_ended(tmp_path: Path) -> None:
    with kept(tmp_path, NOTES_ITS_PID + PROVES) as process:
        assert process.wait(timeout=5) == 0
    assert len(read_pids(tmp_path)) == 1


def test_to_leave_without_a_fault_is_no_planned_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a job's code may make its worker do."""
    monkeypatch.chdir(tmp_path)
    leaves = (sys.executable, "-c", NOTES_ITS_PID + "os._exit(0)")
    assert KeptProgram(leaves, IMPATIENT).run() == os.EX_SOFTWARE, "who gives up tells so"
    assert len(read_pids(tmp_path)) == IMPATIENT.most_deaths + 1


def test_an_end_that_was_planned_and_failed_is_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fails = (sys.executable, "-c", NOTES_ITS_PID + PROVES + "os.kill(os.getpid(), signal.SIGKILL)")
    assert KeptProgram(fails, IMPATIENT).run() == -signal.SIGKILL
    assert len(read_pids(tmp_path)) == IMPATIENT.most_deaths + 1


def test_a_program_that_leaves_at_its_first_start_is_given_up_at_once(tmp_path: Path) -> None:
    """Its configuration is wrong, and whoever submitted it should see so."""
    with kept(tmp_path, NOTES_ITS_PID + "sys.exit(3)") as process:
        assert process.wait(timeout=5) == 3
    assert len(read_pids(tmp_path)) == 1


def test_a_program_killed_at_its_first_start_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job in the queue may kill whoever takes it, however young."""
    monkeypatch.chdir(tmp_path)
    assert KeptProgram((sys.executable, "-c", KILLS_ITSELF), IMPATIENT).run() == -signal.SIGKILL
    assert len(read_pids(tmp_path)) == IMPATIENT.most_deaths + 1


def test_the_end_may_be_asked_for_between_two_lives(tmp_path: Path) -> None:
    with kept(tmp_path, KILLS_ITSELF) as process:
        wait_until(lives_at_least(tmp_path, 2))
        time.sleep(0.1)
        started_at = time.monotonic()
        process.terminate()
        assert process.wait(timeout=5) == 128 + signal.SIGKILL
    assert time.monotonic() - started_at < 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_program_whose_keeper_is_killed_is_asked_to_stop(tmp_path: Path) -> None:
    with kept(tmp_path, LIVES) as process:
        wait_until(lives_at_least(tmp_path, 1))
        program = psutil.Process(read_pids(tmp_path)[0])
        process.kill()
        wait_until(lambda: not program.is_running())
