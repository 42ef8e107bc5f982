import os
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main

Started = list[tuple[tuple[str, ...], dict[str, str]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """Programs that a command would have become, with their environment."""
    programs: Started = []
    monkeypatch.setattr(os, "execvpe", lambda _program, command, environment: programs.append((command, environment)))
    monkeypatch.setenv("LLMYARD_DATA_DIR", str(tmp_path))
    for variable in ("BROKER_URL", "FLOWER_BASIC_AUTH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://host")
    return programs


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["llmyard", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_missing_setting_is_one_sentence(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REDIS_URL")
    assert call(monkeypatch, "worker") == 2
    assert capsys.readouterr().err.startswith("llmyard: REDIS_URL is not set: set it to")
    assert not started


def test_flower_is_not_opened_to_others_without_credentials(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "flower", "--address", "0.0.0.0") == 2
    assert "set FLOWER_BASIC_AUTH" in capsys.readouterr().err
    assert not started


def test_flowers_credentials_go_by_its_environment(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "flower", "--address", "0.0.0.0", "--basic-auth", "me:secret") == 0
    [(command, environment)] = started
    assert "secret" not in " ".join(command)
    assert environment["FLOWER_BASIC_AUTH"] == "me:secret"


def test_the_workers_concurrency_goes_by_its_settings(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://host")
    assert call(monkeypatch, "worker", "--concurrency", "3") == 0
    [(command, environment)] = started
    assert command[-4:] == ("worker", "--loglevel=INFO", "--hostname=llmyard@%h", "--without-gossip")
    assert environment["LLMYARD_CONCURRENCY"] == "3"
