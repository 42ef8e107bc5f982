"""Reading a database's URL, and telling an outage from a mistake; no server needed."""

import asyncio
import re

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.database import Database, create_engine, is_unreachable, patiently, plain_dsn
from shared.errors import ConfigurationError

NOBODY = "postgresql://u@127.0.0.1:1/nothing"


class DriverError(Exception):
    """As SQLAlchemy wraps what asyncpg raises."""


def wrap(cause: BaseException, *, is_invalidated: bool = False) -> DBAPIError:
    driver = DriverError(str(cause))
    driver.__cause__ = cause
    return DBAPIError("select 1", None, driver, connection_invalidated=is_invalidated)


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgres://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d?sslmode=require", "postgresql://u:p@h/d?sslmode=require"),
        ("postgresql+psycopg2://h/d", "postgresql://h/d"),
        ("postgresql://u@/d?host=%2Ftmp%2Fa%20b&port=5432", "postgresql://u@/d?host=%2Ftmp%2Fa%20b&port=5432"),
        ("postgresql://u:p%40postgres://x@a:1,b:2/d", "postgresql://u:p%40postgres://x@a:1,b:2/d"),
    ],
)
def test_every_postgres_url_is_read(url: str, dsn: str) -> None:
    assert plain_dsn(url) == dsn


@pytest.mark.parametrize("url", ["mysql://h/d", "postgresqlite://h/d", "h/d", "", "sqlite:///x", " postgresql://h/d"])
def test_another_url_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL begins with .* postgresql:// URL\.$"):
        plain_dsn(url)


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        plain_dsn("mysql://user:s3cret@h/d")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        FileNotFoundError("socket"),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError("x"),
        asyncpg.CannotConnectNowError("x"),
        asyncpg.AdminShutdownError("x"),
        asyncpg.CrashShutdownError("x"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.TooManyConnectionsError("x"),
        asyncpg.DiskFullError("x"),
        PoolTimeoutError("x"),
    ],
)
def test_an_outage_is_told_however_it_is_wrapped(error: BaseException) -> None:
    assert is_unreachable(error)
    assert is_unreachable(wrap(error))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError("x"),
        asyncpg.UndefinedTableError("x"),
        asyncpg.InsufficientPrivilegeError("x"),
        asyncpg.DataError("x"),
        asyncpg.DeadlockDetectedError("x"),
        ValueError("x"),
    ],
)
def test_a_mistake_is_no_outage(error: BaseException) -> None:
    assert not is_unreachable(error)
    assert not is_unreachable(wrap(error))


def test_a_connection_that_sqlalchemy_gave_up_is_an_outage() -> None:
    assert is_unreachable(wrap(ValueError("x"), is_invalidated=True))
    assert not is_unreachable(ProgrammingError("select 1", None, Exception("x")))
    assert not is_unreachable(InterfaceError("select 1", None, Exception("x")))


async def test_patience_repeats_until_the_database_answers() -> None:
    errors = [ConnectionRefusedError(), wrap(asyncpg.AdminShutdownError("x")), PoolTimeoutError("x")]

    async def operation() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    assert await patiently(operation, longest_wait_seconds=0.001) == "done"
    assert errors == []


@pytest.mark.parametrize("mistake", [wrap(asyncpg.UniqueViolationError("x")), KeyError("x")])
async def test_patience_does_not_repeat_a_mistake(mistake: Exception) -> None:
    tries: list[int] = []

    async def operation() -> None:
        tries.append(1)
        raise mistake

    with pytest.raises(type(mistake)):
        await patiently(operation)
    assert tries == [1]


async def test_patience_can_be_cancelled() -> None:
    async def operation() -> None:
        raise ConnectionRefusedError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await patiently(operation)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (NOBODY, r"The database cannot be reached \(.+\): start it, or set DATABASE_URL to one that runs\."),
        ("postgresql://u@/d?host=/nowhere", r"The database cannot be reached \(.+\): start it, .+"),
        ("postgresql://u@h:port/d", r"DATABASE_URL cannot be used \(.+'port'\): set it to postgresql://.+"),
        ("postgresql://u@127.0.0.1:99999/d", r"DATABASE_URL cannot be used \(.+0-65535\.\): set it to .+"),
        ("postgresql://u@h/d?sslmode=perhaps", r".+`sslmode` parameter must be one of.+"),
    ],
)
async def test_what_cannot_be_connected_to_is_told_in_one_sentence(url: str, sentence: str) -> None:
    database = Database(create_engine(url), create_engine(url))
    with pytest.raises(ConfigurationError) as caught:
        await database.verify_roles()
    assert re.fullmatch(sentence, str(caught.value))
    await database.aclose()
