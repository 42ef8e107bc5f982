"""A database, a model server, an input, workers and beat that are up: all that a batch needs but its client."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.batches.checker import Verdict, check, check_output
from benchmarks.batches.ledger import count_working, read_ledger
from benchmarks.batches.model import Model, start_model
from benchmarks.batches.model_server import build_question
from benchmarks.batches.yard import BEAT, CONCURRENCY, WORKERS, Yard
from benchmarks.chaos.parts import wait_until
from benchmarks.throughput.stage import CATALOG, Database, Stage
from benchmarks.throughput.systems import BULK, Crew

CREW: Final = Crew(len(WORKERS), CONCURRENCY)
START_SECONDS: Final = 60.0
LEASE_SECONDS: Final = 10.0
"""What a killed worker had in hand is waited for so long; 30 is usual."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked."""

    lines: int
    deadline_seconds: float
    """Then it is given up."""


@dataclass(frozen=True)
class Scene:
    """Ready for a client."""

    stage: Stage
    yard: Yard
    database: Database
    model: Model

    def judge(self, lines: int) -> Verdict:
        """Once the client has ended.

        Raises:
            RuntimeError: it left no output, with the end of its log.
        """
        if not self.yard.output.exists():
            raise RuntimeError(f"the client left no output:\n{self.yard.read_client_log()[-2000:]}")
        with self.yard.output.open("rb") as rows:
            output = check_output(rows, lines)
        return check(lines, output, read_ledger(self.database.url), self.model.count_calls())


@contextmanager
def set_up(stage: Stage, name: str, lines: int, delay_ms: float) -> Iterator[Scene]:
    """Ended with the block."""
    directory = stage.directory / name
    directory.mkdir()
    database = stage.open_database(BULK)
    with start_model(directory, delay_ms) as model:
        catalog = directory / "llmyard.yaml"
        catalog.write_text(CATALOG.format(url=model.base_url))
        environment = stage.build_environment(database, CREW) | {
            "LLMYARD_CONFIG": str(catalog),
            "LLMYARD_LEASE_SECONDS": str(LEASE_SECONDS),
            "PYTHONUNBUFFERED": "1",
        }
        with Yard(directory, environment) as yard:
            write_input(yard.input, lines)
            for part in (*WORKERS, BEAT):
                yard.start(part)
            wait_until(lambda: count_working(database.url) == len(WORKERS), START_SECONDS, "the workers are up")
            yield Scene(stage, yard, database, model)
    database.drop()


def write_input(path: Path, lines: int) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps({"prompt": build_question(line)}) + "\n" for line in range(1, lines + 1))
