from pathlib import Path

from orchestrator.stack.services import ServicePlan

PLAN = ServicePlan(
    directory=Path("data"),
    environment={"REDIS_URL": "redis://:secret@host"},
    metrics_directory=Path("data/metrics"),
    api_port=8001,
    flower_port=5556,
    worker_grace_seconds=20.0,
)


def test_only_the_worker_may_be_started_again() -> None:
    assert [(spec.name, spec.may_restart) for spec in PLAN.services()] == [
        ("worker", True),
        ("beat", False),
        ("api", False),
        ("flower", False),
    ]


def test_no_password_stands_in_a_command_line() -> None:
    commands = [" ".join(spec.command) for spec in (PLAN.migration(), *PLAN.services())]
    assert not [command for command in commands if "secret" in command]


def test_what_can_be_reached_over_tcp_listens_on_the_loopback() -> None:
    commands = {spec.name: spec.command for spec in PLAN.services()}
    assert "--host=127.0.0.1" in commands["api"]
    assert "--address=127.0.0.1" in commands["flower"]


def test_worker_and_api_count_in_one_place_and_flower_elsewhere() -> None:
    places = {spec.name: spec.environment.get("PROMETHEUS_MULTIPROC_DIR") for spec in PLAN.services()}
    assert places == {"worker": "data/metrics", "beat": None, "api": "data/metrics", "flower": None}
