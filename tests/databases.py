"""Databases for tests: made and dropped over the server's own superuser."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg


@contextmanager
def make_database(server_url: str, options: str) -> Iterator[str]:
    """URL of a superuser, to a database that lasts as long as the block."""
    name = f"test_{uuid4().hex}"
    administrate(server_url, f"create database {name} {options}")
    yield change_url(server_url, database=name)
    administrate(server_url, f"drop database {name} with (force)")


def administrate(url: str, *statements: str) -> None:
    """Not for tests that run inside a loop: it has one of its own."""

    async def execute() -> None:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(execute())


def change_url(url: str, *, database: str | None = None, user: str | None = None, query: str | None = None) -> str:
    """The same server, as somebody else, by another way or to another database."""
    parts = urlsplit(url)
    return urlunsplit(
        parts._replace(
            netloc=parts.netloc if user is None else f"{user}@",
            path=parts.path if database is None else f"/{database}",
            query=parts.query if query is None else query,
        )
    )
