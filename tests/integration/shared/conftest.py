"""A Postgres of their own for tests that change roles, which belong to the whole server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.stack.embedded_postgres import prepare_postgres
from orchestrator.stack.supervisor import Supervisor
from tests.databases import administrate


@pytest.fixture(scope="session")
def roles_server(server_directory: Path, server_supervisor: Supervisor) -> str:
    postgres = prepare_postgres(server_directory / "roles", print, is_durable=False)
    server_supervisor.start(postgres.child())
    return postgres.url


@pytest.fixture
def server_without_roles(roles_server: str) -> Iterator[str]:
    """URL of its superuser; the databases of a test are gone before the roles are."""
    yield roles_server
    administrate(roles_server, "drop role if exists llmyard_app, llmyard_system, owner, other_owner, guest")
