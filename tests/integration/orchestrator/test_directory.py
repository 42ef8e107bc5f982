"""Agents are looked up once for many jobs, and a change is heard of within seconds."""

import asyncio

import asyncpg
import pytest

from orchestrator.agents.directory import STALE_SECONDS, AgentDirectory
from shared.database import Database
from shared.errors import NotFoundError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(database: Database, clock: Clock) -> AgentDirectory:
    return AgentDirectory(database, clock)


RENAME = "update agents set name = 'Kim' where tenant_id = 'default'"


async def test_a_change_is_heard_of_when_what_is_known_is_stale(
    directory: AgentDirectory, clock: Clock, superuser: asyncpg.Connection
) -> None:
    before = await directory.get("default", None)
    await superuser.execute(RENAME)
    clock.now += STALE_SECONDS
    assert await directory.get("default", None) is before
    clock.now += 0.01
    assert (await directory.get("default", None)).name == "Kim"


async def test_many_ask_once(directory: AgentDirectory) -> None:
    agents = await asyncio.gather(*(directory.get("default", None) for _ in range(20)))
    assert len({id(agent) for agent in agents}) == 1


async def test_what_was_not_found_is_looked_for_again(directory: AgentDirectory, superuser: asyncpg.Connection) -> None:
    with pytest.raises(NotFoundError):
        await directory.get("default", "kim")
    await superuser.execute("update agents set id = 'kim' where tenant_id = 'default'")
    assert (await directory.get("default", "kim")).id == "kim"


async def test_whoever_goes_away_takes_nobodys_answer_along(directory: AgentDirectory) -> None:
    gone, staying = (asyncio.ensure_future(directory.get("default", None)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await staying).id == "assistant"
