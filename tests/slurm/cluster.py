"""A real Slurm on this one host: a controller and three nodes, each with a daemon of its own, on the loopback.

Nothing of the system's is used or changed: own configuration, own key, own directories, free ports.
"""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.ports import find_any_port
from tests.acceptance.yard import wait_until

NODES = ("n1", "n2", "n3")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
GRACE_SECONDS = 5
"""How long Slurm leaves a preempted batch job in peace before it tells it so; then it has KillWait."""

CONFIGURATION = """
ClusterName=yard
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
StateSaveLocation={directory}/state
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdSpoolDir={directory}/spool/%n
SlurmdPidFile={directory}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace_seconds}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
# One CPU each: an urgent job on a node then leaves no room for the worker there.
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN"


def find_obstacle() -> str | None:
    """Why no Slurm can be started here."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "Slurm's daemons start jobs for others, so they need root"
    return None


class Cluster:
    """Leaving it ends every daemon that was started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: list[Child] = []
        self._environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}

    def __enter__(self) -> Self:
        self._prepare()
        try:
            self._start("munged", "--foreground", "--force", *self._munge_places())
            wait_until((self._directory / "munge.socket").exists, seconds=10)
            self._start("slurmctld", "-D", "-c")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node, name=f"slurmd.{node}")
            wait_until(self.is_idle, seconds=60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.try_query("scancel", "--user=root")
        for child in reversed(self._children):
            child.end()

    def is_idle(self) -> bool:
        return self.try_query("sinfo", "-h", "-p", "batch", "-o", "%T %D") == f"idle {len(NODES)}"

    def query(self, *command: str) -> str:
        """What a command of Slurm's says."""
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def try_query(self, *command: str) -> str:
        """The same, of what may be gone."""
        try:
            return self.query(*command)
        except (AssertionError, subprocess.TimeoutExpired):
            return ""

    def submit(self, *arguments: str, directory: Path) -> str:
        """The id of a batch job; of an array, of the whole."""
        return self.query("sbatch", "--parsable", f"--chdir={directory}", *arguments)

    def state_of(self, job: str) -> str:
        """As squeue tells it; empty once it is gone from there."""
        return self.try_query("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def log_of(self, name: str) -> str:
        return (self._directory / f"{name}.log").read_text(errors="replace")

    def _prepare(self) -> None:
        for name in ("state", "spool"):
            (self._directory / name).mkdir(parents=True)
        key = self._directory / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = socket.gethostname()
        nodes = [NODE.format(name=node, host=host, port=find_any_port()) for node in NODES]
        (self._directory / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                directory=self._directory,
                controller_port=find_any_port(),
                nodes="\n".join(nodes),
                grace_seconds=GRACE_SECONDS,
            )
        )

    def _munge_places(self) -> tuple[str, ...]:
        kinds = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed", "log-file": "munge.log"}
        return tuple(f"--{option}={self._directory}/munge.{kind}" for option, kind in kinds.items())

    def _start(self, program: str, *arguments: str, name: str | None = None) -> None:
        path = shutil.which(program)
        assert path
        spec = ChildSpec(name or program, (path, *arguments), environment=self._environment)
        child = Child(spec, self._directory)
        self._children.append(child)
        assert child.exit_status() is None, child.log_tail()
