"""The processes of a yard: programs that are started, and workers that are forked; each may be killed by its pid."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from orchestrator.stack.children import Child, kill_all, wait_for_end
from shared.settings import child_environment

STOP_SECONDS: Final = 15.0


class Part(Protocol):
    """A running process, whichever way it came about."""

    name: str

    @property
    def pid(self) -> int: ...

    def is_alive(self) -> bool: ...

    def send_signal(self, number: signal.Signals) -> None:
        """To this process alone; nothing happens when it is gone."""

    def end(self) -> None:
        """Ask it to stop, then kill it."""

    def log(self) -> str: ...


class Program:
    """A `Child` as a part."""

    def __init__(self, child: Child) -> None:
        self.name = child.spec.name
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    def is_alive(self) -> bool:
        return self._child.exit_status() is None

    def send_signal(self, number: signal.Signals) -> None:
        if self.is_alive():
            psutil.Process(self.pid).send_signal(number)

    def end(self) -> None:
        self.send_signal(signal.SIGCONT)
        self._child.end()

    def log(self) -> str:
        return self._child.new_log()


class Fork:
    """A worker or beat that the zygote forked."""

    def __init__(self, name: str, pid: int, log_path: Path) -> None:
        self.name = name
        self.pid = pid
        self._log_path = log_path
        # Remembers when it was made, so that another process that got its pid is never meant. None: it is gone already.
        self._process = find_process(pid)

    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_running() and self._status() != psutil.STATUS_ZOMBIE

    def send_signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)

    def end(self) -> None:
        if self._process is None:
            return
        self.send_signal(signal.SIGCONT)
        self.send_signal(signal.SIGTERM)
        wait_for_end([self._process], STOP_SECONDS)
        kill_all([self._process])

    def log(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def _status(self) -> str:
        assert self._process is not None, "asked only of a process that was found"
        with suppress(psutil.NoSuchProcess):
            return str(self._process.status())
        return psutil.STATUS_ZOMBIE


def find_process(pid: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


@dataclass(frozen=True, slots=True)
class ForkOrder:
    """What the zygote is to fork."""

    name: str
    arguments: tuple[str, ...]
    """Celery's own."""
    environment: Mapping[str, str]
    directory: Path

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def to_json(self) -> str:
        return json.dumps(
            {
                "arguments": self.arguments,
                "environment": dict(self.environment),
                "directory": str(self.directory),
                "log": str(self.log),
            }
        )


class Zygote:
    """Our end of `benchmarks.chaos.zygote`."""

    def __init__(self, environment: Mapping[str, str], log_path: Path) -> None:
        self._log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "benchmarks.chaos.zygote"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=child_environment(environment),
                cwd=Path(__file__).parents[2],
            )

    def fork(self, order: ForkOrder) -> Fork:
        assert self._process.stdin is not None, "opened as a pipe"
        assert self._process.stdout is not None, "opened as a pipe"
        self._process.stdin.write(order.to_json() + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"nothing can be forked any more:\n{self._log_path.read_text()[-2000:]}")
        return Fork(order.name, int(answer), order.log)

    def close(self) -> None:
        """It ends when nobody can give it orders, and what it forked with it."""
        self._process.communicate(timeout=STOP_SECONDS)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look often, give up loudly.

    Raises:
        TimeoutError: naming what did not come about.
    """
    if not comes_about(condition, seconds):
        raise TimeoutError(f"within {seconds:.0f} s it did not come about that {what}")


def comes_about(condition: Callable[[], bool], seconds: float) -> bool:
    """Look often; False when the time was not enough, where that is a finding and not a surprise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
