"""The environment as one value, and what is said when it cannot be used."""

import json
from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.settings import (
    RUNNING_STACK_FILE,
    Settings,
    child_environment,
    find_running_stack,
    find_secret,
    load_settings,
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("LLMYARD_DATA_DIR", str(tmp_path))


def write_stack(directory: Path, **urls: str) -> None:
    (directory / RUNNING_STACK_FILE).write_text(json.dumps({"urls": urls, "pid": 1}))


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/llmyard")
    monkeypatch.setenv("LLMYARD_CONCURRENCY", "7")
    monkeypatch.setenv("LLMYARD_MOCK_WHEN_NO_PROVIDER", "1")
    settings = load_settings()
    assert settings.require_database_url() == "postgresql://db/llmyard"
    assert (settings.llmyard_concurrency, settings.llmyard_mock_when_no_provider) == (7, True)


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "LLM_POOL_URL", "LLMYARD_CONCURRENCY", "LLMYARD_CONFIG"])
def test_empty_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    unset = load_settings()
    monkeypatch.setenv(name, "")
    assert load_settings() == unset


def test_the_broker_is_redis_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://r/0")
    assert load_settings().require_broker_url() == "redis://r/0"
    monkeypatch.setenv("BROKER_URL", "amqp://b//")
    assert load_settings().require_broker_url() == "amqp://b//"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLMYARD_CONCURRENCY", "many"),
        ("LLMYARD_CONCURRENCY", "0"),
        ("LLMYARD_LEASE_SECONDS", "0.5"),
        ("LLMYARD_LEASE_SECONDS", "soon"),
        ("LLMYARD_SHUTDOWN_GRACE_SECONDS", "-1"),
        ("LLMYARD_MOCK_WHEN_NO_PROVIDER", "perhaps"),
        ("LLMYARD_METRICS_PORT", "0"),
        ("LLMYARD_METRICS_PORT", "65536"),
        ("LLMYARD_TRACE_CONTENT", "perhaps"),
    ],
)
def test_a_wrong_value_is_told_with_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"^{name} cannot be used: [^\n]+\.$"):
        load_settings()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_lease_has_an_end(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LLMYARD_LEASE_SECONDS", value)
    with pytest.raises(ConfigurationError, match=r"^LLMYARD_LEASE_SECONDS"):
        load_settings()


@pytest.mark.parametrize(
    ("require", "name"),
    [("require_database_url", "DATABASE_URL"), ("require_redis_url", "REDIS_URL"), ("require_broker_url", "REDIS_URL")],
)
def test_what_is_missing_is_told_with_what_to_set(require: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} is not set: set it to [^\n]+`llmyard up`\.$"):
        getattr(load_settings(), require)()


def test_a_running_stack_fills_in_what_the_environment_leaves_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_stack(tmp_path, database_url="postgresql://stack/llmyard", redis_url="redis://stack/0")
    monkeypatch.setenv("REDIS_URL", "redis://mine/0")
    settings = load_settings()
    assert settings.require_database_url() == "postgresql://stack/llmyard"
    assert settings.require_redis_url() == "redis://mine/0"


def test_without_a_running_stack_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert find_running_stack(tmp_path) == {}
    assert find_running_stack(tmp_path / "nowhere") == {}


def test_a_secret_is_looked_up_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    monkeypatch.setenv("EMPTY_KEY", "")
    assert [find_secret(name) for name in ("SOME_KEY", "EMPTY_KEY", "ABSENT_KEY")] == ["s3cret", None, None]


def test_a_child_gets_our_environment_with_its_own_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "ours")
    monkeypatch.setenv("OTHER_KEY", "ours")
    child = child_environment({"SOME_KEY": "its own"})
    assert (child["SOME_KEY"], child["OTHER_KEY"]) == ("its own", "ours")
