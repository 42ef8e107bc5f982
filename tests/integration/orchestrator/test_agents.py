"""Agents and tenants as an operator keeps them, and a worker's parts put together on them."""

from pathlib import Path

import asyncpg
import pytest

from orchestrator.agents.catalog import (
    DEFAULT_PROFILE,
    AgentProfile,
    TenantProfile,
    ensure_default_tenant,
    get_agent,
    save_tenants,
)
from orchestrator.jobs.deliveries import NewMessage
from orchestrator.outcomes import Succeeded
from orchestrator.wiring import open_worker
from shared.database import Database
from shared.errors import ConfigurationError, NotFoundError
from shared.settings import Settings
from tests.builders import build_message

ZOE = AgentProfile("zoe", "Zoe", "a baker", "You rhyme.", "Sell bread.", "fast", ["oven"], [{"to": "boss"}])
ACME = TenantProfile("acme", "Acme", "zoe", (ZOE,))


async def find(database: Database, tenant_id: str, agent_id: str | None = None) -> AgentProfile:
    async with database.as_tenant(tenant_id) as connection:
        return await get_agent(connection, tenant_id, agent_id)


async def test_an_agent_is_kept_as_it_was_given(database: Database) -> None:
    await save_tenants(database, [ACME])
    assert await find(database, "acme") == await find(database, "acme", "zoe") == ZOE


async def test_saved_again_it_is_replaced_and_others_stay(database: Database, superuser: asyncpg.Connection) -> None:
    await save_tenants(database, [ACME])
    max_ = AgentProfile("max", "Max", "a brewer")
    await save_tenants(database, [TenantProfile("acme", "Acme Ltd", "max", (max_,))])
    assert await find(database, "acme") == max_
    assert await find(database, "acme", "zoe") == ZOE
    assert await superuser.fetchval("select name from tenants where id = 'acme'") == "Acme Ltd"


async def test_an_agent_of_another_tenant_is_not_there(database: Database) -> None:
    await save_tenants(database, [ACME])
    with pytest.raises(NotFoundError, match="no agent 'zoe' in tenant 'default'"):
        await find(database, "default", "zoe")
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        await find(database, "nobody")


async def test_the_default_tenant_is_left_as_an_operator_made_it(database: Database) -> None:
    await save_tenants(database, [TenantProfile("default", "Ours", "zoe", (ZOE,))])
    await ensure_default_tenant(database)
    assert await find(database, "default") == ZOE
    assert await find(database, "default", DEFAULT_PROFILE.default_agent_id) == DEFAULT_PROFILE.agents[0]


async def test_a_worker_is_put_together_and_answers(database_url: str, database: Database, tmp_path: Path) -> None:
    catalog = tmp_path / "llmyard.yaml"
    catalog.write_text("groups: {quality: {deployments: [m]}}\ndeployments: [{name: m, provider: mock, model: m}]\n")
    parts = await open_worker(Settings(database_url=database_url, llmyard_config=catalog))
    outcome = await parts.runner.handle(NewMessage(build_message(), "task-1"))
    await parts.aclose()
    assert isinstance(outcome, Succeeded)
    assert outcome.result["content"] == "[mock answer] hello"
    assert parts.heartbeat.cancelling()


async def test_a_worker_does_not_start_without_its_tables(empty_database_url: str, migrated_template: str) -> None:
    with pytest.raises(ConfigurationError, match="run `llmyard migrate`"):
        await open_worker(Settings(database_url=empty_database_url))
