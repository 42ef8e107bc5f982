"""What is missing or wrong stops the start with one sentence that says what to set; no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from shared.settings import child_environment

LLMYARD = (sys.executable, "-m", "orchestrator.cli.main")
CELERY = (sys.executable, "-m", "celery", "-A", "orchestrator.celery_app")
SERVERS = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "LLM_POOL_URL")
PROVIDERS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OLLAMA_API_KEY", "OLLAMA_HOST", "LLMYARD_MOCK_WHEN_NO_PROVIDER")
NOTHING_SET = dict.fromkeys((*SERVERS, *PROVIDERS, "LLMYARD_CONFIG", "LLMYARD_LOG_FORMAT"), "")
NOWHERE = "redis://127.0.0.1:1/0"
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/nothing"


def start(command: tuple[str, ...], directory: Path, **environment: str) -> str:
    """Returns the sentence it ended with."""
    done = subprocess.run(
        command,
        env=child_environment({**NOTHING_SET, "LLMYARD_DATA_DIR": str(directory), **environment}),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("llmyard: ")
    return sentence


@pytest.mark.parametrize("command", [(*CELERY, "worker"), (*CELERY, "beat"), (*LLMYARD, "worker"), (*LLMYARD, "api")])
def test_a_missing_server_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "REDIS_URL is not set" in start(command, tmp_path, DATABASE_URL=NO_DATABASE)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL begins with 'mysql'"),
        ({"DATABASE_URL": NO_DATABASE}, "The database cannot be reached"),
        ({"LLMYARD_CONCURRENCY": "many"}, "LLMYARD_CONCURRENCY cannot be used"),
        ({"LLMYARD_LOG_FORMAT": "loud"}, "LLMYARD_LOG_FORMAT is 'loud'"),
    ],
)
def test_a_worker_says_what_is_wrong(tmp_path: Path, environment: dict[str, str], sentence: str) -> None:
    assert sentence in start((*CELERY, "worker"), tmp_path, **{"REDIS_URL": NOWHERE, **environment})


def test_a_worker_without_a_provider_says_what_to_set(tmp_path: Path, database_url: str) -> None:
    sentence = start((*CELERY, "worker"), tmp_path, REDIS_URL=NOWHERE, DATABASE_URL=database_url)
    assert "No model provider is configured or in reach: set ANTHROPIC_API_KEY" in sentence


def test_a_wrong_catalogue_names_its_file_and_key(tmp_path: Path, database_url: str) -> None:
    catalog = tmp_path / "llmyard.yaml"
    catalog.write_text("deployments: [{name: a, provider: telepathy, model: m}]\ngroups: {fast: {deployments: [a]}}")
    environment = {"REDIS_URL": NOWHERE, "DATABASE_URL": database_url, "LLMYARD_CONFIG": str(catalog)}
    sentence = start((*CELERY, "worker"), tmp_path, **environment)
    assert str(catalog) in sentence
    assert "telepathy" in sentence


def test_a_database_that_was_never_migrated_says_so(tmp_path: Path, empty_database_url: str) -> None:
    sentence = start((*LLMYARD, "api"), tmp_path, REDIS_URL=NOWHERE, DATABASE_URL=empty_database_url)
    assert "llmyard migrate" in sentence
