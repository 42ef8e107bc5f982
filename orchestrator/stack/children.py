"""One child process: how to start it, how to tell that it is ready, and how to end it with all it started itself.

What several children mean to each other is the supervisor's business.
"""

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from shared.errors import LLMYardError
from shared.settings import child_environment

LOG_BYTES_TO_KEEP = 20_000_000
TAIL_LINES = 12


class StackError(LLMYardError):
    """The stack cannot start, or could not go on; the message says which part, and shows the end of its log."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run, and what the supervisor needs to know about it."""

    name: str
    """Unique in a stack; also names the log file."""
    command: tuple[str, ...]
    address: str = ""
    """Where it can be reached, for people."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """On top of our own."""
    working_directory: Path | None = None
    user: str | None = None
    """System user to run as, when that is not our own."""
    is_ready: Callable[["Child"], bool] = lambda _child: True
    start_timeout_seconds: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_seconds: float = 10.0
    may_restart: bool = False
    """Started again when it dies, within bounds, instead of taking the stack down."""


class Child:
    """A running process of a `ChildSpec`, in a session of its own so that a terminal's Ctrl-C reaches only us."""

    def __init__(self, spec: ChildSpec, log_directory: Path) -> None:
        self.spec = spec
        self.log = log_directory / f"{spec.name}.log"
        _rotate(self.log)
        with self.log.open("ab") as output:
            output.seek(0, os.SEEK_END)
            self._log_offset = output.tell()
            self._process = _spawn(spec, output.fileno())
        self.started_at = time.monotonic()
        self.create_time = psutil.Process(self._process.pid).create_time()
        """By the kernel's clock; with the pid it identifies the process beyond doubt."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    def is_ready(self) -> bool:
        return self.spec.is_ready(self)

    def new_log(self) -> str:
        """What it has logged since this start."""
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            return log.read().decode(errors="replace")

    def log_tail(self) -> str:
        return "\n".join(self.new_log().splitlines()[-TAIL_LINES:])

    def describe_exit(self) -> str:
        return describe_exit_status(self._process.returncode)

    def end(self, should_hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask it to stop, wait for its grace or until told to hurry, then kill what is left of it and its children."""
        descendants = find_descendants(self.pid)
        deadline = time.monotonic() + self.spec.stop_grace_seconds
        if self.exit_status() is None:
            self._process.send_signal(self.spec.stop_signal)
        while self.exit_status() is None and time.monotonic() < deadline and not should_hurry():
            time.sleep(0.02)
        kill_group(self.pid)
        self._process.wait()
        kill_all(descendants)


def describe_exit_status(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def find_descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_group(group: int) -> None:
    # Nobody left in the group, or (on macOS) only a zombie that we have yet to collect.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def wait_for_end(processes: list[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Gives back who has not ended in time."""
    deadline = time.monotonic() + timeout_seconds
    while (running := [process for process in processes if _is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return running


def kill_all(processes: list[psutil.Process]) -> None:
    """Those still there a moment later. Postgres' backends have sessions of their own, and leave by themselves."""
    for process in wait_for_end(processes, timeout_seconds=2.0):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for_end(processes, timeout_seconds=5.0)


def run_as(user: str | None) -> dict[str, Any]:
    """Arguments for `subprocess` that give up root and its groups for a system user."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _is_running(process: psutil.Process) -> bool:
    # A zombie has ended; in a container nobody may ever collect it.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _spawn(spec: ChildSpec, output: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            spec.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=spec.working_directory,
            env=child_environment(spec.environment),
            start_new_session=True,
            **run_as(spec.user),
        )
    except OSError as error:
        raise StackError(f"{spec.name} could not be started: {error}.") from error


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_TO_KEEP:
        log.replace(log.with_suffix(".log.1"))
