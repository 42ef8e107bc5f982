"""The bench's end of the model server: tells it how to behave, and reads what it saw."""

import json
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.calls import Call, CallLog
from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.ports import accepts_connections, find_any_port


class Model:
    """A model server, and its record."""

    def __init__(self, directory: Path) -> None:
        self.port = find_any_port()
        self._control_port = find_any_port()
        self._record = directory / "calls.jsonl"
        self._directory = directory
        self.log = CallLog(self._record)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> Child:
        command = (sys.executable, "-m", "benchmarks.chaos.model_server", str(self._record))
        spec = ChildSpec(
            "model-server",
            (*command, str(self.port), str(self._control_port)),
            working_directory=Path(__file__).parents[2],
            is_ready=lambda _: accepts_connections(self._control_port),
        )
        return Child(spec, self._directory)

    def behave(self, prefix: str, behaviour: Behaviour) -> None:
        """From the next call on, for questions that begin with the prefix."""
        self._tell("behaviours", {"prefix": prefix, **asdict(behaviour)})

    def release(self, calls: Iterable[Call]) -> None:
        """Let these held calls go on."""
        self._tell("releases", [call.number for call in calls])

    def listen(self, *, is_wanted: bool) -> None:
        """Without it connections are refused, and those still open are cut at their next call."""
        self._tell("listening", is_wanted)

    def _tell(self, path: str, told: object) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._control_port}/{path}",
            data=json.dumps(told).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 (our own URL)
            response.read()
