"""docker-compose.yml and its .env.example, held against each other and against the program, without a Docker engine."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from llm_pool.providers.presets import KEY_VARIABLES
from orchestrator.cli.main import app

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("${LLMYARD_IMAGE")}
ONE_SHOT = {"migrate"}
PUBLISHED = {"redis": "6379", "llm-pool": "8002", "api": "8000", "flower": "5555"}
SECRETS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD"}


def variables_in(value: object) -> dict[str, str]:
    """Each `${NAME…}` with what follows its name: a default (`:-…`), or the sentence for its absence (`:?…`)."""
    return dict(re.findall(r"\$\{(\w+)([^}]*)\}", str(value)))


def example_variables() -> set[str]:
    return set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))


def run_compose(env_file: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in example_variables()}
    command = ["docker", "compose", "--env-file", str(env_file), "config", "--quiet"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def docker_compose() -> None:
    try:
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no docker CLI with compose here")


def test_services() -> None:
    expected = {"postgres", "redis", "migrate", "llm-pool", "worker", "beat", "api", "flower", "ollama"}
    assert SERVICES.keys() == expected
    assert SERVICES["ollama"]["profiles"] == ["ollama"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["ollama"]


def test_ports_are_published_on_the_loopback_by_default() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.keys() == PUBLISHED.keys()
    for name, (port,) in ports.items():
        pattern = rf"\$\{{PUBLISH_ADDRESS:-127\.0\.0\.1\}}:\$\{{\w+:-{PUBLISHED[name]}\}}:{PUBLISHED[name]}"
        assert re.fullmatch(pattern, port)


def test_everything_that_stays_has_a_healthcheck() -> None:
    assert [name for name, service in SERVICES.items() if not service.get("healthcheck", {}).get("test")] == ["migrate"]


def test_dependencies_wait_for_what_they_need() -> None:
    for service in SERVICES.values():
        for name, dependency in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
            assert dependency["condition"] == wanted
    assert {"migrate", "postgres", "redis", "llm-pool"} <= SERVICES["worker"]["depends_on"].keys()


def test_everything_restarts_and_reaps() -> None:
    restarts = {name: service["restart"] for name, service in SERVICES.items()}
    assert restarts == {**dict.fromkeys(SERVICES, "unless-stopped"), "migrate": "no"}
    assert all(service["init"] for service in SERVICES.values())


def test_flower_asks_who_you_are() -> None:
    credentials = SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"]
    assert credentials.startswith("${FLOWER_USER:-admin}:${FLOWER_PASSWORD:?")


def test_redis_forgets_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


@pytest.mark.parametrize("service", OURS)
def test_command_is_one_of_ours(service: str) -> None:
    name, *arguments = OURS[service]["command"]
    program = get_command(app)
    assert isinstance(program, TyperGroup)
    program.commands[name].make_context(name, arguments)  # raises on an option that is not there


def test_every_variable_is_explained() -> None:
    assert variables_in(COMPOSE).keys() | {"COMPOSE_PROFILES"} == example_variables()


def test_the_example_says_what_holds_without_it() -> None:
    """A file that is not there would be mounted as an empty directory."""
    given = dict(re.findall(r"^(\w+)=(.+)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    defaults = {name: rest.removeprefix(":-") for name, rest in variables_in(COMPOSE).items() if rest.startswith(":-")}
    assert {name: defaults[name] for name in given if name in defaults} == {
        name: value for name, value in given.items() if name in defaults
    }
    assert (ROOT / given["LLMYARD_CONFIG_FILE"]).is_file()


def test_every_usual_key_reaches_the_pool() -> None:
    assert {*KEY_VARIABLES.values(), "REDIS_URL"} <= SERVICES["llm-pool"]["environment"].keys()


def test_secrets_have_no_default() -> None:
    used = variables_in(COMPOSE)
    assert {name for name in used if name.endswith("_PASSWORD")} == SECRETS
    assert all(used[name].startswith(f":?set {name} in .env") for name in SECRETS)


def test_model_keys_stay_with_the_pool() -> None:
    holders = {
        name for name, service in SERVICES.items() if any("_API_KEY" in key for key in service.get("environment", {}))
    }
    assert holders == {"llm-pool"}


def test_compose_accepts_the_file(docker_compose: None, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}=secret\n" for name in SECRETS))
    shown = run_compose(env_file)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_says_which_secret_is_missing(docker_compose: None, tmp_path: Path, missing: str) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}=secret\n" for name in SECRETS - {missing}))
    refused = run_compose(env_file)
    assert refused.returncode != 0
    assert f"set {missing} in .env" in refused.stderr
