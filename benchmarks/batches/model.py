"""Our end of `benchmarks.batches.model_server`: one for each measurement, so that nobody else's calls are counted."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from benchmarks.chaos.parts import Program, wait_until
from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.ports import LOOPBACK, accepts_connections, find_any_port

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Model:
    """A running one."""

    port: int

    @property
    def base_url(self) -> str:
        """As the catalog names it."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    def set_delay(self, milliseconds: float) -> None:
        """From here on it takes this long."""
        self._ask(f"/control?delay_ms={milliseconds}")

    def count_calls(self) -> Mapping[int, int]:
        """How often each question was asked, by its number."""
        return {int(number): calls for number, calls in self._ask("/calls").items()}

    def _ask(self, target: str) -> dict[str, Any]:
        with urlopen(f"http://{LOOPBACK}:{self.port}{target}", timeout=30) as reply:
            found: dict[str, Any] = json.loads(reply.read())
            return found


@contextmanager
def start_model(log_directory: Path, delay_ms: float) -> Iterator[Model]:
    """Ended with the block."""
    model = Model(find_any_port())
    command = (sys.executable, "-m", "benchmarks.batches.model_server", str(model.port))
    program = Program(Child(ChildSpec("model", command, working_directory=ROOT), log_directory))
    try:
        wait_until(lambda: accepts_connections(model.port), START_SECONDS, "the model server answers")
        model.set_delay(delay_ms)
        yield model
    finally:
        program.end()
