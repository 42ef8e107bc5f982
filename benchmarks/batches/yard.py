"""The processes of one measurement: workers, beat and the client, each of which may be killed and started again."""

import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from benchmarks.batches.footprint import Footprint, look_at
from benchmarks.chaos.parts import Program
from orchestrator.stack.children import Child, ChildSpec

LLMYARD: Final = (sys.executable, "-P", "-m", "orchestrator.cli.main")
CLIENT: Final = "client"
BEAT: Final = "beat"
WORKERS: Final = ("worker-0", "worker-1")
CONCURRENCY: Final = 64
LOOK_SECONDS: Final = 0.1


class Yard:
    """Leaving it ends every process."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.input = directory / "in.jsonl"
        self.output = directory / "out.jsonl"
        self.client_footprint = Footprint()
        """Of the client that runs, or ran last."""
        self._environment = environment
        self._parts: dict[str, Program] = {}
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def start(self, name: str) -> None:
        spec = ChildSpec(
            name,
            self._build_command(name),
            environment=self._environment,
            working_directory=self.directory,
            stop_grace_seconds=5.0,
        )
        part = Program(Child(spec, self.directory))
        self._parts[name] = part
        self._ending.callback(self._end, part)

    def kill(self, name: str) -> bool:
        """With SIGKILL, and all that it started; False if it had ended before. Its place stays empty until `start`."""
        part = self._parts[name]
        was_alive = part.is_alive()
        part.send_signal(signal.SIGKILL)
        part.end()
        return was_alive

    def find_pid(self, name: str) -> int:
        return self._parts[name].pid

    def watch_client(self, deadline: float) -> Footprint:
        """What the client used, once it has ended by itself.

        Raises:
            TimeoutError: it had not by `deadline`, which is monotonic.
            RuntimeError: somebody died whom nobody killed; with the end of the log.
        """
        self.client_footprint = Footprint()
        while self.is_client_running():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the client did not end in time:\n{self._parts[CLIENT].log()[-2000:]}")
            time.sleep(LOOK_SECONDS)
        return self.client_footprint

    def is_client_running(self) -> bool:
        """Looks at what it uses, too."""
        self._check()
        part = self._parts[CLIENT]
        self.client_footprint = look_at(part.pid, self.client_footprint)
        return part.is_alive()

    def _check(self) -> None:
        for name, part in self._parts.items():
            if name != CLIENT and not part.is_alive():
                raise RuntimeError(f"{name} has ended:\n{part.log()[-2000:]}")

    def read_client_log(self) -> str:
        return self._parts[CLIENT].log()

    def _end(self, part: Program) -> None:
        if part.is_alive():
            part.end()

    def _build_command(self, name: str) -> tuple[str, ...]:
        if name == CLIENT:
            return (*LLMYARD, "batch", "run", str(self.input), "-o", str(self.output))
        if name == BEAT:
            return (*LLMYARD, "beat", "--log-level", "WARNING")
        options = ("--concurrency", str(CONCURRENCY), "--log-level", "WARNING", "--hostname", f"{name}@bench")
        return (*LLMYARD, "worker", *options)
