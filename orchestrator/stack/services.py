"""Our own programs as children: worker, beat, API and Flower, on the loopback."""

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.stack.children import ChildSpec
from orchestrator.stack.ports import LOOPBACK, accepts_connections
from orchestrator.stack.programs import (
    build_api_command,
    build_beat_command,
    build_flower_command,
    build_migrate_command,
    build_worker_command,
)

# From the banner, which Celery prints however its logging is set.
_BEAT_SAYS_READY = " is starting."


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What the services of one stack have in common, and the ports they got."""

    directory: Path
    """The stack's data directory; they also run in it, so that no module lying about elsewhere is imported."""
    environment: Mapping[str, str]
    metrics_directory: Path
    """Where those that count keep their metrics together; the API then shows the worker's too."""
    api_port: int
    flower_port: int
    worker_grace_seconds: float
    """How long a worker may take to hand back its jobs and leave."""

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.api_port}"

    @property
    def flower_url(self) -> str:
        return f"http://{LOOPBACK}:{self.flower_port}"

    @property
    def worker_hostname(self) -> str:
        """Two stacks of one machine may share a broker; their API ports tell them apart."""
        return f"llmyard-{self.api_port}@{socket.gethostname()}"

    @property
    def _counting_environment(self) -> Mapping[str, str]:
        """Not for Flower, which would put its own metrics among ours."""
        return {**self.environment, "PROMETHEUS_MULTIPROC_DIR": str(self.metrics_directory)}

    def migration(self) -> ChildSpec:
        return self._build("migrate", build_migrate_command())

    def services(self) -> tuple[ChildSpec, ...]:
        return (self._worker(), self._beat(), self._api(), self._flower())

    def _worker(self) -> ChildSpec:
        return ChildSpec(
            name="worker",
            command=build_worker_command(self.worker_hostname),
            address=self.worker_hostname,
            environment=self._counting_environment,
            working_directory=self.directory,
            # Celery's own words. Asking it over the broker would be slower, and differ from broker to broker.
            is_ready=lambda child: f"{self.worker_hostname} ready." in child.new_log(),
            stop_grace_seconds=self.worker_grace_seconds,
            may_restart=True,  # a worker may be killed for its memory; its jobs are safe in the ledger
        )

    def _beat(self) -> ChildSpec:
        return ChildSpec(
            name="beat",
            command=build_beat_command(self.directory / "celerybeat-schedule"),
            environment=self.environment,
            working_directory=self.directory,
            is_ready=lambda child: _BEAT_SAYS_READY in child.new_log(),
        )

    def _api(self) -> ChildSpec:
        return ChildSpec(
            name="api",
            command=build_api_command(LOOPBACK, self.api_port),
            address=self.api_url,
            environment=self._counting_environment,
            working_directory=self.directory,
            is_ready=lambda _child: is_healthy(self.api_port),
        )

    def _flower(self) -> ChildSpec:
        return ChildSpec(
            name="flower",
            command=build_flower_command(LOOPBACK, self.flower_port),
            address=self.flower_url,
            environment=self.environment,
            working_directory=self.directory,
            is_ready=lambda _child: accepts_connections(self.flower_port),
        )

    def _build(self, name: str, command: tuple[str, ...]) -> ChildSpec:
        return ChildSpec(name, command, environment=self.environment, working_directory=self.directory)


def is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
