from pathlib import Path

import pytest

from orchestrator.stack.configuration import (
    StackOptions,
    StackUrls,
    build_service_environment,
    hide_password,
)
from shared.settings import Settings, load_environment

URLS = StackUrls("postgresql://db", "redis://results", "redis://broker")
OPTIONS = StackOptions(Path("data"))
MOCK = "LLMYARD_MOCK_WHEN_NO_PROVIDER"
VARIABLES = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "LLMYARD_CONFIG", MOCK)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def build(settings: Settings, options: StackOptions = OPTIONS) -> dict[str, str]:
    return build_service_environment(URLS, options, settings, Path("data"))


def test_services_are_told_where_the_servers_are() -> None:
    environment = build(Settings())
    assert environment["DATABASE_URL"] == "postgresql://db"
    assert environment["REDIS_URL"] == "redis://results"
    assert environment["BROKER_URL"] == "redis://broker"


def test_the_mock_provider_may_answer_when_all_is_embedded() -> None:
    assert build(Settings())[MOCK] == "true"


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL", "BROKER_URL"])
def test_no_invented_answers_in_front_of_the_users_own_servers(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "redis://theirs")
    assert MOCK not in build(Settings())


def test_a_users_own_choice_about_the_mock_provider_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MOCK, "false")
    assert MOCK not in build(Settings())


def test_logins_of_another_database_do_not_reach_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(Settings())["DATABASE_APP_URL"] == ""
    monkeypatch.setenv("DATABASE_URL", "postgresql://theirs")
    assert "DATABASE_APP_URL" not in build(Settings())


def test_a_relative_configuration_is_found_from_where_the_services_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMYARD_CONFIG", "llmyard.yaml")
    assert build(Settings())["LLMYARD_CONFIG"] == str(Path("llmyard.yaml").resolve())


def test_concurrency_reaches_the_worker_only_when_it_was_chosen() -> None:
    assert "LLMYARD_CONCURRENCY" not in build(Settings())
    assert build(Settings(), StackOptions(Path("data"), concurrency=7))["LLMYARD_CONCURRENCY"] == "7"


def test_another_running_stack_is_not_taken_for_the_users_own_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stack.json").write_text('{"urls": {"database_url": "postgresql://other"}}')
    monkeypatch.setenv("LLMYARD_DATA_DIR", str(tmp_path))
    assert load_environment().database_url is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/llmyard?sslmode=require", "postgresql://me@host:5432/llmyard"),
        ("redis://:secret@host/0", "redis://host/0"),
        ("amqp://host", "amqp://host"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert hide_password(url) == shown
