"""The worker processes of one system: started, held still while jobs are enqueued, and ended."""

import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self

import psutil

from benchmarks.throughput.costs import find_trees, measure_cpu, measure_pss_mb
from benchmarks.throughput.systems import PEERS, Crew, System
from orchestrator.stack.children import Child, ChildSpec
from shared.settings import child_environment

ENQUEUE_SECONDS: Final = 120.0


class Fleet:
    """Leaving it ends every process, whatever became of the measurement."""

    def __init__(self, system: System, crew: Crew, environment: Mapping[str, str], directory: Path) -> None:
        self.system = system
        self.crew = crew
        self._environment = environment
        self._directory = directory
        self._children: list[Child] = []
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        if self.system.prepare is not None:
            Sender(self.system.prepare(self.system.binaries), self._environment).communicate(ENQUEUE_SECONDS)
        commands = self.system.build_worker_commands(self.crew)
        for number, command in enumerate(commands):
            name = f"{self.system.name}-{number}-{time.monotonic_ns()}"
            environment = {**self._environment, "BENCH_ROLE": "worker"}
            spec = ChildSpec(name, command, environment=environment, working_directory=PEERS, stop_grace_seconds=3.0)
            child = Child(spec, self._directory)
            self._children.append(child)
            self._ending.callback(child.end)
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        self._ending.close()

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def check(self) -> None:
        """That all are alive.

        Raises:
            RuntimeError: one of them has died, with the end of its log.
        """
        for child in self._children:
            if child.exit_status() is not None:
                raise RuntimeError(f"{child.spec.name} {child.describe_exit()}:\n{child.log_tail()}")

    def count_connected(self, port: int) -> int:
        """Processes that hold a connection to this port."""
        return sum(is_connected(process, port) for process in find_trees(self.pids))

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def enqueue(self, first: int, count: int) -> None:
        self.start_enqueueing(first, count).communicate(timeout=ENQUEUE_SECONDS)

    def start_enqueueing(self, first: int, count: int, rate: float | None = None) -> "Sender":
        return Sender(self.system.build_enqueue_command(first, count, rate), self._environment)

    def measure_cpu(self) -> float:
        return measure_cpu(self.pids)

    def measure_pss_mb(self) -> float:
        return measure_pss_mb(self.pids)

    def _signal(self, number: signal.Signals) -> None:
        for process in find_trees(self.pids):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Sender:
    """A program that puts jobs on a queue."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command,
            cwd=PEERS,
            env=child_environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def is_done(self) -> bool:
        return self._process.poll() is not None

    def communicate(self, timeout: float) -> str:
        """What it printed.

        Raises:
            RuntimeError: it failed.
            subprocess.TimeoutExpired: it took too long.
        """
        try:
            output, errors = self._process.communicate(timeout=timeout)
        finally:
            self._process.kill()
        if self._process.returncode != 0:
            raise RuntimeError(f"{' '.join(self._command)} failed:\n{errors[-2000:]}")
        return output


def is_connected(process: psutil.Process, port: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any(
            found.raddr and found.raddr.port == port and found.status == psutil.CONN_ESTABLISHED
            for found in process.net_connections(kind="tcp")
        )
    return False
