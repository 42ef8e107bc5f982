"""Scripts as people write them, each a Python process of its own: what stands on standard output is the answer."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shared.settings import child_environment

ASK = "import asyncio, llm_pool; print(asyncio.run(llm_pool.chat('hello')).content)"
ASK_A_POOL = """
import asyncio
from llm_pool.assembly import open_pool
from shared.settings import load_settings


async def ask():
    _, pool = await open_pool(load_settings())
    print((await pool.chat("hello")).content)
    await pool.aclose()


asyncio.run(ask())
"""
KEY = "sk-" + "abcdefgh12345"


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Its first deployment has no valid key, and bears one that should be nobody's to read."""
    first = {"name": KEY, "provider": "mock", "model": "m", "options": {"faults": ["authentication"] * 9}}
    second = {"name": "b", "provider": "mock", "model": "m"}
    group = {"deployments": [KEY, "b"], "strategy": "priority", "retries": 0}
    path = tmp_path / "llmyard.yaml"
    path.write_text(yaml.safe_dump({"deployments": [first, second], "groups": {"quality": group}}))
    return path


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = child_environment(variables)
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )


@pytest.mark.parametrize("script", [ASK, ASK_A_POOL])
def test_only_the_answer_stands_on_standard_output(script: str, catalogue: Path) -> None:
    done = run(script, LLMYARD_CONFIG=str(catalogue))
    assert done.stdout == "[mock answer] hello\n"
    assert "deployment_cooled" in done.stderr
    assert KEY not in done.stderr
    assert "request_answered" not in done.stderr


def test_who_wants_to_see_each_request_sees_it(catalogue: Path) -> None:
    done = run(ASK, LLMYARD_CONFIG=str(catalogue), LLMYARD_LOG_LEVEL="debug")
    assert done.stdout == "[mock answer] hello\n"
    assert "request_answered" in done.stderr


def test_a_program_that_has_configured_structlog_keeps_it(catalogue: Path) -> None:
    own = "import structlog; structlog.configure(logger_factory=structlog.PrintLoggerFactory()); "
    done = run(own + ASK, LLMYARD_CONFIG=str(catalogue))
    assert "request_answered" in done.stdout
