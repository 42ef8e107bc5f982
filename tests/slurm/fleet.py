"""Workers on a Slurm, submitted by the batch script that is shipped, against servers that run elsewhere."""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Self

import psutil

from tests.acceptance.model_server import ModelServer
from tests.acceptance.yard import Yard, wait_until
from tests.slurm.cluster import Cluster

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "worker.sbatch"
CONCURRENCY = 20


class Fleet:
    """An array of workers; leaving it cancels what is left of it."""

    def __init__(self, cluster: Cluster, directory: Path, database_url: str, model: ModelServer) -> None:
        self.cluster = cluster
        self.yard = Yard(directory, database_url, model)
        self.directory = directory
        self.settings = directory / "env"
        self.array = ""

    def __enter__(self) -> Self:
        self.write_settings()
        self.yard.__enter__()
        self.yard.start_beat()
        return self

    def __exit__(self, *_: object) -> None:
        if self.array:
            self.cluster.try_query("scancel", self.array)
            wait_until(self.cluster.is_idle, seconds=60)
        self.yard.close()

    def write_settings(self, **changed: str) -> None:
        """The file with URLs and keys, for its owner alone."""
        values = {
            **self.yard.environment,
            "LLMYARD_CONCURRENCY": str(CONCURRENCY),
            "LLMYARD_PROGRAM": str(Path(sys.executable).with_name("llmyard")),
            **changed,
        }
        self.settings.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))
        self.settings.chmod(0o600)

    def submit(self, tasks: int, *options: str, wait: bool = True) -> None:
        """The array, each worker on a node of its own; comes back when each takes jobs."""
        arguments = (f"--array=0-{tasks - 1}", *options, str(SCRIPT), str(self.settings))
        self.array = self.cluster.submit(*arguments, directory=self.directory)
        for task in range(tasks if wait else 0):
            self.wait_until_ready(task)

    def name(self, task: int) -> str:
        """Of one task of the array, for Slurm's commands."""
        return f"{self.array}_{task}"

    def log(self, task: int) -> str:
        path = self.directory / f"llmyard-{self.name(task)}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until_ready(self, task: int, starts: int = 1) -> None:
        wait_until(lambda: self.log(task).count("worker_ready") >= starts, seconds=60)

    def wait_until_state(self, task: int, *states: str, seconds: float = 90) -> None:
        """As squeue tells it, or empty when it is gone from there."""
        wait_until(lambda: self.cluster.state_of(self.name(task)) in states, seconds)

    def node(self, task: int) -> str:
        return self.cluster.query("squeue", "-h", "-j", self.name(task), "-o", "%N")

    def kill(self, task: int) -> None:
        """At once, as a node dies. Alone, scancel's KILL comes after TERM and KillWait, or reaches the shell only."""
        worker = self.worker_pid(task)
        self.cluster.query("scancel", "--signal=KILL", "--batch", self.name(task))
        os.kill(worker, signal.SIGKILL)

    def preempt(self, task: int, seconds: float) -> None:
        """An urgent job wants the task's node for so long; come back when the task had to give way."""
        urgent = ("--partition=urgent", f"--nodelist={self.node(task)}", "--output=urgent.log")
        self.cluster.submit(*urgent, f"--wrap=sleep {seconds}", directory=self.directory)
        self.wait_until_state(task, "PENDING")

    def start_again(self, task: int) -> None:
        """Slurm keeps a requeued job waiting for two minutes; an owner may say otherwise."""
        self.cluster.query("scontrol", "update", f"JobId={self.name(task)}", "StartTime=now")

    def worker_pid(self, task: int) -> int:
        """The worker itself, not what keeps it alive."""
        (found,) = [process.pid for process in psutil.process_iter() if self._is_worker(process, task)]
        return found

    def _is_worker(self, process: psutil.Process, task: int) -> bool:
        try:
            environment = process.environ()
            is_of_task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
            return is_of_task == (self.array, str(task)) and process.cmdline()[2:4] == ["-m", "celery"]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False
