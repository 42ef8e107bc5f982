"""A stack's data directory of its own for each test, and a supervisor that leaves nothing behind."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.stack.data_directory import make_data_directory
from orchestrator.stack.supervisor import Supervisor


@pytest.fixture
def data_directory() -> Iterator[Path]:
    # Not `tmp_path`: see `server_directory`.
    directory = make_data_directory(Path(tempfile.mkdtemp(prefix="llmyard-test-")))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def said() -> list[str]:
    """What a supervisor had to tell."""
    return []


@pytest.fixture
def make_supervisor(data_directory: Path, said: list[str]) -> Iterator[Callable[[], Supervisor]]:
    made: list[Supervisor] = []

    def make() -> Supervisor:
        made.append(Supervisor(data_directory, said.append))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop()


@pytest.fixture
def supervisor(make_supervisor: Callable[[], Supervisor]) -> Supervisor:
    return make_supervisor()
