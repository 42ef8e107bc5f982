"""Every service of docker-compose.yml by its very command, on a real Postgres and Valkey, and one job through them."""

import asyncio
import base64
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.acceptance.compose_by_hand import ComposeByHand

CATALOG = """
deployments:
  - {name: mock, provider: mock, model: mock}
groups:
  fast: {deployments: [mock]}
  quality: {deployments: [mock]}
"""
VARIABLES = {"FLOWER_USER": "admin", "FLOWER_PASSWORD": "open-sesame"}
STAYING = ("llm-pool", "worker", "beat", "api", "flower")


@pytest.fixture
def empty_database_url(postgres_server: str) -> str:
    async def create() -> None:
        connection = await asyncpg.connect(postgres_server)
        await connection.execute('drop database if exists "compose" with (force)')
        await connection.execute('create database "compose"')
        await connection.close()

    asyncio.run(create())
    return urlsplit(postgres_server)._replace(path="/compose").geturl()


@pytest.fixture
def compose(tmp_path: Path, empty_database_url: str, redis_url: str) -> Iterator[ComposeByHand]:
    config = tmp_path / "llmyard.yaml"
    config.write_text(CATALOG)
    environment = {"DATABASE_URL": empty_database_url, "REDIS_URL": redis_url, "LLMYARD_CONFIG": str(config)}
    services = ComposeByHand(tmp_path, environment, VARIABLES)
    yield services
    services.stop_all()


def ask(url: str, body: dict[str, Any] | None = None, credentials: str = "") -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    if credentials:
        headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=40) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_compose_answers_a_job(compose: ComposeByHand) -> None:
    migration = compose.run("migrate")
    assert migration.returncode == 0, migration.stderr
    for name in STAYING:
        compose.start(name)

    api = f"http://127.0.0.1:{compose.ports['api']}"
    status, text = ask(f"{api}/v1/jobs", {"content": "Is anybody there?"})
    assert status == 202, text
    status, text = ask(f"{api}/v1/jobs/{json.loads(text)['job_id']}?wait=30")
    assert (status, json.loads(text)["state"]) == (200, "succeeded")
    assert "Is anybody there?" in text

    flower = f"http://127.0.0.1:{compose.ports['flower']}/api/workers?refresh=1"
    assert ask(flower)[0] == 401
    status, text = ask(flower, credentials="admin:open-sesame")
    assert status == 200
    assert "llmyard@" in text

    # uvicorn shuts down in order and then ends by the signal it was sent.
    assert set(compose.stop_all().values()) <= {0, -signal.SIGTERM}
