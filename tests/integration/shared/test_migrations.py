"""The migrations against a real Postgres: up, down, at once, as an ordinary owner, and as the models say."""

import asyncio
import subprocess
import sys

import asyncpg
from alembic import command

from shared import migrations
from shared.models import metadata
from tests.databases import make_database

MADE_BY_US = """
select relname from pg_class c join pg_namespace n on n.oid = relnamespace
where nspname = 'public' and relkind in ('r', 'v', 'm', 'S', 'f', 'p')
"""
UPGRADE = "import sys; from shared import migrations; migrations.upgrade(sys.argv[1])"
FUNCTIONS = "select proname from pg_proc where pronamespace = 'public'::regnamespace"


async def fetch(url: str, query: str) -> set[str]:
    connection = await asyncpg.connect(url)
    names = {row[0] for row in await connection.fetch(query)}
    await connection.close()
    return names


def test_the_models_are_what_the_migrations_make(database_url: str) -> None:
    command.check(migrations.build_config(database_url))


async def test_every_model_has_its_table(database_url: str) -> None:
    assert await fetch(database_url, MADE_BY_US) >= set(metadata.tables)


async def test_down_leaves_nothing_and_up_again_works(empty_database_url: str) -> None:
    url = empty_database_url
    await asyncio.to_thread(migrations.upgrade, url)
    made = await fetch(url, MADE_BY_US)
    await asyncio.to_thread(migrations.downgrade, url, "base")
    assert await fetch(url, MADE_BY_US) == {"alembic_version"}
    assert await fetch(url, FUNCTIONS) == set()
    await asyncio.to_thread(migrations.upgrade, url)
    assert await fetch(url, MADE_BY_US) == made


def test_up_twice_changes_nothing(database_url: str) -> None:
    migrations.upgrade(database_url)
    command.check(migrations.build_config(database_url))


def test_two_upgrades_at_the_same_time(empty_database_url: str) -> None:
    upgrade_together(empty_database_url, empty_database_url)
    command.check(migrations.build_config(empty_database_url))


def test_two_databases_of_one_server_at_the_same_time(server_without_roles: str) -> None:
    with (
        make_database(server_without_roles, "template template0") as one,
        make_database(server_without_roles, "template template0") as other,
    ):
        upgrade_together(one, other)


def upgrade_together(*urls: str) -> None:
    """In processes, as Alembic keeps what it works on in globals."""
    command = (sys.executable, "-c", UPGRADE)
    processes = [subprocess.Popen((*command, url), stderr=subprocess.PIPE, text=True) for url in urls]
    said = [process.communicate(timeout=30)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(urls), said
