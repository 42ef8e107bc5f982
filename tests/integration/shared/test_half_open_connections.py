"""A database that can be reached again, over connections that died without a word."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import text

from benchmarks.chaos.proxy import Proxy
from shared.database import GOODBYE_SECONDS, Database, create_engine, patiently

LONGEST_SECONDS = 0.3


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    (directory,) = parse_qs(urlsplit(database_url).query)["host"]
    with Proxy(partial(asyncio.open_unix_connection, f"{directory}/.s.PGSQL.5432")) as proxy:
        yield proxy


@pytest.fixture
async def database(proxy: Proxy, database_url: str) -> AsyncIterator[Database]:
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(database_url).path}"
    opened = Database(create_engine(url), create_engine(url), longest_seconds=LONGEST_SECONDS)
    yield opened
    await opened.aclose()


async def ask(database: Database, query: str = "select 1") -> int:
    async with database.as_system() as connection:
        return int(await connection.scalar(text(query)) or 0)


async def test_a_transaction_on_a_dead_connection_ends_and_the_next_goes_through(
    proxy: Proxy, database: Database
) -> None:
    assert await ask(database) == 1
    proxy.strand()
    started_at = time.monotonic()
    assert await asyncio.wait_for(patiently(lambda: ask(database)), 10) == 1
    assert time.monotonic() - started_at >= LONGEST_SECONDS


async def test_where_one_connection_was_dead_the_others_are_not_waited_for(proxy: Proxy, database: Database) -> None:
    """They lay in the pool beside it; each would take as long to notice."""
    await asyncio.gather(*(ask(database, "select 1 from pg_sleep(0.1)") for _ in range(8)))
    proxy.strand()
    started_at = time.monotonic()
    assert await asyncio.wait_for(patiently(lambda: ask(database)), 10) == 1
    assert time.monotonic() - started_at < 4 * LONGEST_SECONDS, "one was waited for, and no second"
    assert await asyncio.gather(*(ask(database) for _ in range(8))) == [1] * 8


async def test_a_transaction_that_is_under_way_when_its_connection_dies_ends(proxy: Proxy, database: Database) -> None:
    with pytest.raises(Exception, match="closed"):  # noqa: PT012 (what raises is the end of the block)
        async with asyncio.timeout(10), database.as_system() as connection:
            await connection.scalar(text("select 1"))
            proxy.strand()
            await connection.scalar(text("select 2"))


async def test_connections_that_nobody_answers_on_are_closed_all_the_same(proxy: Proxy, database: Database) -> None:
    await asyncio.gather(*(ask(database, "select 1 from pg_sleep(0.1)") for _ in range(4)))
    proxy.strand()
    await asyncio.wait_for(database.aclose(), GOODBYE_SECONDS + 2)


async def test_a_transaction_within_its_time_is_left_alone(database: Database) -> None:
    for _ in range(3):
        assert await ask(database) == 1
        await asyncio.sleep(LONGEST_SECONDS / 2)


async def test_the_server_ends_a_transaction_that_nobody_goes_on_with(database: Database) -> None:
    """Its client may have gone without a word, and what it has locked is skipped by every sweep."""
    async with database.as_system() as connection:
        assert await connection.scalar(text("show idle_in_transaction_session_timeout")) == "10s"
        assert await connection.scalar(text("show transaction_timeout")) == "20s"
