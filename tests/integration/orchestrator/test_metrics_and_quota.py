"""What the API and the command line tell of the pools: metrics, quotas, cooldowns, and how the queue stands."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from llm_pool.catalogs.catalog_file import load_catalog
from llm_pool.pool_status import Answering, DeploymentQuota, QuotaInfo
from llm_pool.stores.cooldowns.base import build_key
from llm_pool.stores.cooldowns.redis import RedisCooldowns
from llm_pool.stores.statuses.redis import RedisStatuses
from orchestrator.api.app import open_api
from orchestrator.liveness import registry
from orchestrator.liveness.registry import Standing, WorkerIdentity
from shared.clock import SystemClock
from shared.database import Database
from shared.redis_client import open_redis
from shared.settings import Settings
from tests.fakes.uvicorn_server import serve_app
from tests.ledger import PARKED, Jobs

CATALOG = """
deployments:
  - {name: cloud, provider: mock, model: big}
  - {name: local, provider: mock, model: small}
  - {name: keyless, provider: openai, model: gpt, api_key: "${NOBODY_SET_THIS}"}
  - {name: away, provider: ollama, model: m, base_url: "http://127.0.0.1:1", only_if_reachable: true}
  - {name: elsewhere, provider: ollama, model: n, base_url: "http://127.0.0.1:1", only_if_reachable: true}
groups:
  fast: {deployments: [cloud, local, keyless, away, elsewhere]}
"""
NOW = datetime.now(UTC)


def build_quota(remaining: int, now: datetime) -> DeploymentQuota:
    resets_at = now + timedelta(seconds=600)
    info = QuotaInfo("requests", "minute", 100, remaining, 100 - remaining, resets_at, now, is_warning=remaining < 20)
    return DeploymentQuota("cloud", "mock", "big", (info,))


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def client(database_url: str, database: Database, broker: str) -> AsyncIterator[aiohttp.ClientSession]:
    app = await open_api(Settings(database_url=database_url, redis_url=broker))
    async with serve_app(app) as url, aiohttp.ClientSession(url) as client:
        yield client


@pytest.fixture
def configured(tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a command line, and its catalogue."""
    catalog = tmp_path / "llmyard.yaml"
    catalog.write_text(CATALOG)
    for name, value in (("DATABASE_URL", database_url), ("REDIS_URL", redis_url), ("LLMYARD_CONFIG", str(catalog))):
        monkeypatch.setenv(name, value)
    return catalog


async def show_status(*arguments: str) -> str:
    """As a user runs it: a process of its own."""
    command = (sys.executable, "-m", "orchestrator.cli.main", "status", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    shown, _ = await process.communicate()
    assert process.returncode == 0
    return shown.decode()


async def test_the_api_answers_prometheus(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "# TYPE llm_requests_total counter" in await answer.text()


async def test_the_api_tells_the_quotas_that_workers_told(client: aiohttp.ClientSession, redis: Redis) -> None:
    answering = Answering("fast", "cloud", "mock", "big", NOW)
    await RedisStatuses(redis).publish([build_quota(40, NOW)], [answering])
    async with client.get("/v1/quota") as answer:
        told = await answer.json()
    assert told["current_provider"] == "mock"
    assert told["answering"][0]["deployment"] == "cloud"
    (quota,) = told["quotas"]
    (info,) = quota["quotas"]
    assert (quota["deployment"], info["limit"], info["remaining"], info["used"]) == ("cloud", 100, 40, 60)
    assert datetime.fromisoformat(info["resets_at"]) == NOW + timedelta(seconds=600)


async def test_without_a_word_from_any_worker_nothing_is_known(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/quota") as answer:
        assert await answer.json() == {"current_provider": None, "quotas": [], "answering": []}


async def test_quotas_that_cannot_be_read_are_a_503(database_url: str, database: Database, broker: str) -> None:
    app = await open_api(Settings(database_url=database_url, redis_url="redis://127.0.0.1:1/0"))
    async with serve_app(app) as url, aiohttp.ClientSession(url) as client, client.get("/v1/quota") as answer:
        assert (answer.status, (await answer.json())["error"]["field"]) == (503, "redis")


async def test_status_shows_deployments_quotas_cooldowns_and_jobs(
    configured: Path, redis: Redis, jobs: Jobs, database: Database
) -> None:
    answering = [Answering("fast", "cloud", "mock", "big", NOW), Answering("slow", "elsewhere", "ollama", "n", NOW)]
    await RedisStatuses(redis).publish([build_quota(10, datetime.now(UTC))], answering)
    catalog = load_catalog(configured, lambda _: None)
    local = next(each for each in catalog.deployments if each.name == "local")
    await RedisCooldowns(redis, catalog.policies.cooldown, SystemClock()).cool(build_key(local), 900.0)
    assert await jobs.record(await jobs.start(), PARKED)
    await jobs.start()
    async with database.as_system() as connection:
        await registry.enter(connection, WorkerIdentity("w-1", "here", 64), Standing(0.0, is_stopping=False))
    shown = await show_status()
    lines = {line.split()[0]: " ".join(line.split()) for line in shown.splitlines() if line.strip()}
    assert lines["cloud"].startswith(
        "cloud mock big open fast requests 90 of 100 a minute resets in 10 min (nearly used"
    )
    assert lines["local"].startswith("local mock small cooling for 15 min not asked yet")
    assert lines["away"] == "away left out: nothing listens there"
    assert lines["elsewhere"] == "elsewhere ollama n open slow not asked yet"
    assert lines["keyless"] == "keyless left out: NOBODY_SET_THIS is not set"
    assert lines["running"].startswith("running 1")
    assert lines["parked"].startswith("parked 1") or lines["parked"].startswith("parked because of")
    assert lines["here"].startswith("here w-1 working 1 64")
    assert len(shown.splitlines()) <= 24


async def test_status_as_json(configured: Path, redis: Redis, jobs: Jobs) -> None:
    await jobs.start()
    told = json.loads(await show_status("--json"))
    assert [(count["state"], count["jobs"]) for count in told["queue"]["jobs"]] == [("running", 1)]
    assert told["pool"] == {"current_provider": None, "quotas": [], "answering": []}
    assert told["cooldowns"]["cloud"]["phase"] == "open"
    assert told["left_out"]["away"] == "nothing listens there"


async def test_status_without_redis_still_shows_the_queue(
    configured: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await jobs.start()
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    shown = await show_status()
    assert "Redis cannot be reached" in shown
    assert "running" in shown
