"""One real Slurm for the session, and a fleet of workers on it for each test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.model_server import ModelServer
from tests.slurm.cluster import Cluster, find_obstacle
from tests.slurm.fleet import Fleet

ASK_FOR_IT = "LLMYARD_TEST_SLURM"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Skips, with the reason, where there can be none or nobody asked for it."""
    if not os.environ.get(ASK_FOR_IT):
        pytest.skip(f"a fleet on a real Slurm takes minutes: `make test-slurm`, or {ASK_FOR_IT}=1, asks for it")
    if obstacle := find_obstacle():
        pytest.skip(f"no Slurm can be started here: {obstacle}")
    # Not pytest's own directory, which is closed to others; munge minds that.
    directory = Path(tempfile.mkdtemp(prefix="llmyard-slurm-"))
    directory.chmod(0o755)
    with Cluster(directory) as started:
        yield started
    shutil.rmtree(directory)


@pytest.fixture
def model() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture
def fleet(cluster: Cluster, tmp_path: Path, database_url: str, model: ModelServer) -> Iterator[Fleet]:
    """Valkey and beat run; the array is the test's to submit."""
    with Fleet(cluster, tmp_path, database_url, model) as opened:
        yield opened
