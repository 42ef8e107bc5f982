"""Keeps one program alive where nobody else does, as on a node of a cluster: what dies is started again.

It stands in the program's place: signals go on to it, what it prints is ours, and its planned end is our end too. That
an end was planned the program proves by a byte: its exit status alone may be that of a job that ended its process.
A program of its own, and a small one, as it lives beside every worker of a fleet: `kept_alive PROGRAM ARGUMENT…`.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

from orchestrator.stack.restarts import RestartPolicy

PATIENT: Final = RestartPolicy(most_deaths=10, window_seconds=600.0, longest_delay_seconds=60.0)
"""Some four minutes of nothing but deaths, as when the servers cannot be reached."""
START_SECONDS: Final = 10.0
"""Whoever leaves by itself sooner than this, the first time, never worked: its configuration is wrong."""
PLANNED_END_VARIABLE: Final = "LLMYARD_PLANNED_END_FD"
"""Names the file descriptor that the byte is to be written to."""
PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_SET_PARENT_DEATH_SIGNAL: Final = 1


@dataclass(frozen=True, slots=True)
class Life:
    """One life of the program, and how it ended."""

    seconds: float
    status: int
    """Negative when a signal ended it."""
    is_proven: bool
    """It has told that its end was planned."""


class KeptProgram:
    """Runs a command until its end is asked for, it ends as it planned, or it is given up."""

    def __init__(self, command: Sequence[str], policy: RestartPolicy = PATIENT) -> None:
        self._command = command
        self._policy = policy
        self._deaths: list[float] = []
        self._running: subprocess.Popen[bytes] | None = None
        self._asked: signal.Signals | None = None

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: it asks for the end, of the program and of us."""
        self._asked = signal.Signals(number)
        if self._running is not None:
            self._running.send_signal(self._asked)

    def run(self) -> int:
        """Returns the exit status of the last of its lives; one that is given up has none that says all is well."""
        while True:
            life = self._live_once()
            if self._asked or (life.is_proven and life.status == 0):
                return life.status
            delay = self._decide_delay(life, time.monotonic())
            if delay is None:
                _say(f"{_describe(life.status)}, and is given up")
                return life.status or os.EX_SOFTWARE
            _say(f"{_describe(life.status)}, and is started again in {delay:g} s")
            self._wait(delay)
            if self._asked:
                return life.status

    def _live_once(self) -> Life:
        started_at = time.monotonic()
        told, telling = os.pipe()
        # By `env`, as ours to read is no environment. In our own group: whoever signals the group, as a terminal does,
        # reaches both.
        command = ("env", f"{PLANNED_END_VARIABLE}={telling}", *self._command)
        self._running = subprocess.Popen(command, preexec_fn=_end_with_parent, pass_fds=(telling,))
        os.close(telling)
        if self._asked:
            self._running.send_signal(self._asked)  # it came while there was nobody to tell
        try:
            status = self._running.wait()
            return Life(time.monotonic() - started_at, status, _read_proof(told))
        finally:
            self._running = None
            os.close(told)

    def _decide_delay(self, life: Life, now: float) -> float | None:
        if not self._deaths and life.status > 0 and life.seconds < START_SECONDS:
            return None
        self._deaths.append(now)
        return self._policy.decide_delay(self._deaths, now)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._asked:
            time.sleep(0.05)


def _end_with_parent() -> None:
    """Should we be killed, the program is asked to stop: alone it would hold what it was given without end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _read_proof(told: int) -> bool:
    """Not waited for: what the program started itself may still hold the other end."""
    os.set_blocking(told, False)
    with suppress(BlockingIOError):
        return os.read(told, 1) != b""
    return False


def _describe(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def _say(what: str) -> None:
    print(f"llmyard: the program kept alive {what}.", file=sys.stderr, flush=True)


def main() -> int:
    """The exit status as a shell would give it."""
    kept = KeptProgram(sys.argv[1:])
    for number in PASSED_ON:
        signal.signal(number, kept.pass_on)
    status = kept.run()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
