"""One real llama_cpp.server for the whole session."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator.stack.ports import find_any_port
from tests.real_model_server import SCRIPTS, run_server, skip_without

CONTEXT_TOKENS = 512


@pytest.fixture(scope="session")
def llamacpp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL with `/v1`."""
    skip_without(
        ("gguf", "llama_cpp.server"),
        "llama-cpp-python[server] and gguf are not installed, `make test-llamacpp` does",
    )
    directory = tmp_path_factory.mktemp("llamacpp")
    model = directory / "tiny.gguf"
    subprocess.run([sys.executable, SCRIPTS / "make_tiny_gguf.py", model], check=True)
    port = find_any_port()
    # More threads only fight for the cores with a model this small.
    limits = ["--n_threads", "1", "--n_threads_batch", "1", "--n_ctx", str(CONTEXT_TOKENS)]
    # By default it breaks off a stream when the next request comes.
    manners = ["--embedding", "true", "--interrupt_requests", "false"]
    place = ["--host", "127.0.0.1", "--port", str(port)]
    arguments = ["llama_cpp.server", "--model", str(model), *manners, *place, *limits]
    with run_server(arguments, f"http://127.0.0.1:{port}/v1/models", directory / "server.log"):
        yield f"http://127.0.0.1:{port}/v1"
