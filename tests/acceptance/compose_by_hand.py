"""Runs services of docker-compose.yml without Docker: their own commands, environments and healthchecks.

Translated are only the addresses, which become the loopback, and the variables.
"""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.stack.ports import find_any_port

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
BIN = Path(sys.executable).parent
START_SECONDS = 60


class ComposeByHand:
    """Services by their names in the file, each with its log in one directory."""

    def __init__(self, directory: Path, environment: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._variables = variables
        self.ports = {name: find_any_port() for name in ("llm-pool", "api", "flower")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """A one-shot service, to its end."""
        return subprocess.run(
            self._command(name),
            cwd=self._directory,
            env=self._environ(name),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, name: str) -> None:
        """Start a service and wait until its own healthcheck passes."""
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                self._command(name), cwd=self._directory, env=self._environ(name), stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy(name):
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} did not start:\n{self._log(name).read_text()}")
            time.sleep(0.2)

    def is_healthy(self, name: str) -> bool:
        kind, *command = SERVICES[name]["healthcheck"]["test"]
        arguments = ["sh", "-c", *command] if kind == "CMD-SHELL" else command
        arguments = [self._translate(name, argument).replace("$$", "$") for argument in arguments]
        checked = subprocess.run(
            arguments, cwd=self._directory, env=self._environ(name), capture_output=True, timeout=60
        )
        return checked.returncode == 0

    def stop(self, name: str) -> int:
        """As `docker compose stop` does: SIGTERM, and SIGKILL after the grace."""
        process = self._processes.pop(name)
        process.terminate()
        try:
            return process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def stop_all(self) -> dict[str, int]:
        return {name: self.stop(name) for name in reversed(tuple(self._processes))}

    def _command(self, name: str) -> list[str]:
        return [str(BIN / "llmyard"), *(self._translate(name, argument) for argument in SERVICES[name]["command"])]

    def _environ(self, name: str) -> dict[str, str]:
        wanted = {key: self._translate(name, value) for key, value in SERVICES[name]["environment"].items()}
        addresses = {key: value for key, value in self._addresses().items() if key in wanted}
        container = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self._directory), "HOSTNAME": socket.gethostname()}
        return container | {"LLMYARD_DATA_DIR": str(self._directory)} | wanted | addresses

    def _addresses(self) -> dict[str, str]:
        return {**self._environment, "LLM_POOL_URL": f"http://127.0.0.1:{self.ports['llm-pool']}"}

    def _translate(self, name: str, text: str) -> str:
        """`${NAME}` as compose fills it in, the container's address and port as the test has them."""
        filled = re.sub(r"\$\{(\w+)(?::-([^}]*)|[^}]*)\}", self._fill_in, text)
        port = str(SERVICES[name].get("ports", ["none"])[0]).rpartition(":")[2]
        return filled.replace("0.0.0.0", "127.0.0.1").replace(port, str(self.ports.get(name, port)))

    def _fill_in(self, match: re.Match[str]) -> str:
        return self._variables.get(match[1], match[2] or "")

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"
