"""One real mlx_lm.server for the whole session."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator.stack.ports import find_any_port
from tests.real_model_server import SCRIPTS, run_server, skip_without

MAKE_TINY_MODEL = SCRIPTS / "make_tiny_model.py"


@pytest.fixture(scope="session")
def mlx_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL with `/v1`, as an OpenAI client wants it; the model's name there is `default_model`."""
    skip_without_mlx()
    directory = tmp_path_factory.mktemp("mlx")
    model = directory / "model"
    subprocess.run([sys.executable, MAKE_TINY_MODEL, model], check=True)
    port = find_any_port()
    offline = {"HF_HOME": str(model), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    arguments = ["mlx_lm", "server", "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--temp", "1.0"]
    with run_server(arguments, f"http://127.0.0.1:{port}/health", directory / "server.log", offline):
        yield f"http://127.0.0.1:{port}/v1"


def skip_without_mlx() -> None:
    skip_without(("mlx.core", "mlx_lm"), "mlx wheels exist for Linux x86_64 and Apple silicon only")
