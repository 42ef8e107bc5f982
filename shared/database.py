"""Connections to Postgres, each under a role that row-level security binds.

Whatever login the URL names, work is done as `llmyard_app` (sees one tenant, the one named for the transaction) or
as `llmyard_system` (sees the narrow tables of all tenants, reads no payload). Role and tenant are set for the
transaction only, which also holds behind a pooler in transaction mode.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakSet

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.errors import ConfigurationError

log = structlog.get_logger()

APP_ROLE: Final = "llmyard_app"
SYSTEM_ROLE: Final = "llmyard_system"

# SQLAlchemy 2.0 leaves what asyncpg raises while connecting as it is; 2.1 wraps it.
# What asyncpg says of a connection whose session ended while it lay idle, and that it has not noticed yet, is internal.
DATABASE_ERRORS: Final = (
    SQLAlchemyError,
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresError,
)
"""Whatever a transaction may raise that is not a mistake in Python."""

LONGEST_SECONDS: Final = 12.0
"""A transaction takes milliseconds. One whose connection is half open would never end, and keep its job for ever."""
GOODBYE_SECONDS: Final = 2.0

_FIRST_USED_AT: Final = "llmyard_first_used_at"
"""In a pooled connection's `info`; by the monotonic clock."""

# The server ends a transaction whose client has gone without a word: it holds locks, and sweeps skip what is locked.
# One round trip for all of it.
_ENTER: Final = """
begin; set local role {role}; select set_config('llmyard.tenant_id', {tenant_id}, true);
set local idle_in_transaction_session_timeout = '10s'; {more}
"""
_BOUND_SINCE_17: Final = "set local transaction_timeout = '20s'"

_UNSAFE_ROLE = text(
    """
    select rolsuper as is_superuser, rolbypassrls as bypasses,
           exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                   where n.nspname = current_schema() and c.relkind = 'r'
                     and pg_has_role(current_user, c.relowner, 'usage')) as owns
    from pg_roles where rolname = current_user
    """
)

_TABLES_ARE_THERE = text("select 1 from jobs limit 0")

AnswerT = TypeVar("AnswerT")


def plain_dsn(url: str) -> str:
    """A URL as libpq and asyncpg read it: SQLAlchemy's `+driver` is taken out.

    Raises:
        ConfigurationError: not a Postgres URL.
    """
    if not re.match(r"^postgres(ql)?(\+\w+)?://", url):
        scheme = url.partition(":")[0]
        raise ConfigurationError(f"DATABASE_URL begins with {scheme!r}: set it to a postgresql:// URL.")
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)


def create_engine(url: str, *, pool_size: int = 10) -> AsyncEngine:
    """asyncpg reads the URL itself, so that socket directories, sslmode and several hosts all work."""
    connect: Callable[[], Awaitable[Any]] = partial(asyncpg.connect, plain_dsn(url), timeout=10)
    return create_async_engine(
        "postgresql+asyncpg://", async_creator=connect, pool_size=pool_size, max_overflow=0, pool_pre_ping=False
    )


class Database:
    """Transactions under the two working roles."""

    def __init__(
        self, app_engine: AsyncEngine, system_engine: AsyncEngine, *, longest_seconds: float = LONGEST_SECONDS
    ) -> None:
        """`longest_seconds` bounds a transaction: its connection is cut then."""
        # Transactions are begun and ended here, see `_transaction`.
        self._app_engine = app_engine.execution_options(isolation_level="AUTOCOMMIT")
        self._system_engine = system_engine.execution_options(isolation_level="AUTOCOMMIT")
        self._longest_seconds = longest_seconds
        self._silent_at = -inf
        """When a connection was last cut: those that are older may have died with it."""
        self._drivers: WeakSet[Any] = WeakSet()

    def as_tenant(self, tenant_id: str, settings: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that sees and writes the rows of one tenant; committed at the end of the block.

        `settings` are further statements that set what holds in it alone.
        """
        return self._begin(self._app_engine, APP_ROLE, tenant_id, settings)

    def as_system(
        self, settings: str = "", *, longest_seconds: float | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction over all tenants' narrow tables, without their payload; committed at the end of the block.

        `settings` as above; `longest_seconds` is its own bound.
        """
        return self._begin(self._system_engine, SYSTEM_ROLE, "", settings, longest_seconds)

    @asynccontextmanager
    async def _begin(
        self, engine: AsyncEngine, role: str, tenant_id: str, settings: str = "", longest_seconds: float | None = None
    ) -> AsyncIterator[AsyncConnection]:
        async with engine.connect() as connection:
            driver = await _find_driver(connection, self._silent_at)
            self._drivers.add(driver)
            try:
                with self._cut_after(longest_seconds or self._longest_seconds, driver):
                    async with _transaction(driver, role, tenant_id, settings):
                        yield connection
            finally:
                if driver.is_closed():
                    await connection.invalidate()

    @contextmanager
    def _cut_after(self, seconds: float, driver: Any) -> Iterator[None]:
        """Bound the block by cutting its connection: asyncpg's own timeout goes on to wait for the server."""

        def cut() -> None:
            self._silent_at = monotonic()
            driver.terminate()

        loop = asyncio.get_running_loop()
        timer = loop.call_at(loop.time() + seconds, cut)
        try:
            yield
        finally:
            timer.cancel()

    async def verify_roles(self) -> None:
        """Refuse to work under a role that row-level security does not bind.

        Raises:
            ConfigurationError: the role is missing, is superuser, bypasses row-level security, or owns tables;
                or the database has no tables yet, or cannot be reached.
        """
        await _verify_role(APP_ROLE, self.as_tenant(""))
        await _verify_role(SYSTEM_ROLE, self.as_system())

    async def aclose(self) -> None:
        """A connection that has not said goodbye by `GOODBYE_SECONDS` is cut: there may be nobody at its other end."""
        loop = asyncio.get_running_loop()
        cutting = loop.call_at(loop.time() + GOODBYE_SECONDS, self._cut_all)
        try:
            await self._app_engine.dispose()
            await self._system_engine.dispose()
        finally:
            cutting.cancel()

    def _cut_all(self) -> None:
        for driver in tuple(self._drivers):
            driver.terminate()


async def _find_driver(connection: AsyncConnection, silent_at: float) -> Any:
    """Of a connection that is open, as far as can be known: after a restart of the server none in the pool is.

    After a silence they may be half open, and each would take as long to be found so: none of before is used again.
    """
    assert connection.sync_connection is not None, "it has just been connected"
    raw = connection.sync_connection.connection
    while True:
        driver: Any = raw.driver_connection
        first_used_at = connection.info.setdefault(_FIRST_USED_AT, monotonic())
        if driver is None or not (driver.is_closed() or first_used_at < silent_at):
            return driver
        driver.terminate()
        # The pool gives the next one, which may be no better; an empty place makes a new one.
        await connection.invalidate()
        raw = await connection.get_raw_connection()


@asynccontextmanager
async def _transaction(driver: Any, role: str, tenant_id: str, settings: str) -> AsyncIterator[None]:
    """Straight to the driver, in two round trips beside the block's own; SQLAlchemy thinks each statement is alone."""
    more = f"{_BOUND_SINCE_17}; {settings}" if driver.get_server_version().major >= 17 else settings
    is_over = False
    try:
        await driver.execute(_ENTER.format(role=role, tenant_id=quote(tenant_id), more=more))
        yield
        await driver.execute("commit")
        is_over = True
    finally:
        if not is_over:
            await _roll_back(driver)


async def _roll_back(driver: Any) -> None:
    """Why the block ended is what is raised; a connection that cannot be asked to is not given to anybody else."""
    is_over = False
    try:
        await driver.execute("rollback")
        is_over = True
    except DATABASE_ERRORS as error:
        log.debug("rollback_failed", error=describe_fault(error))
    finally:
        if not is_over:
            driver.terminate()


def quote(text_: str) -> str:
    """A string constant of SQL, whatever stands in it and however the server reads backslashes."""
    return "E'" + text_.replace("\\", "\\\\").replace("'", "''") + "'"


async def _verify_role(role: str, transaction: Any) -> None:
    try:
        async with transaction as connection:
            found = (await connection.execute(_UNSAFE_ROLE)).mappings().one()
            await connection.execute(_TABLES_ARE_THERE)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"DATABASE_URL cannot be used ({describe_fault(error)}): set it to postgresql://user:password@host:port/name."
        ) from error
    except (DBAPIError, asyncpg.PostgresError) as error:
        raise ConfigurationError(
            f"The database cannot be worked with as role {role} ({describe_fault(error)}): run `llmyard migrate` with "
            "the owner's DATABASE_URL, and grant the role to this login."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"The database cannot be reached ({describe_fault(error)}): start it, or set DATABASE_URL to one that runs."
        ) from error
    faults = [fault for fault, holds in found.items() if holds]
    if faults:
        raise ConfigurationError(
            f"Role {role} is not bound by row-level security ({', '.join(faults)}): "
            f"take that from it, for example with `alter role {role} nosuperuser nobypassrls`."
        )


def describe_fault(error: BaseException) -> str:
    """The database's own words, without the layers they came through."""
    cause = error.__cause__ or error
    lines = str(getattr(error, "orig", None) or cause).splitlines() or [type(error).__name__]
    return re.sub(r"^<class '[^']*'>: ", "", lines[0])


_UNREACHABLE: Final = (
    OSError,
    PoolTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # A standby, or a server that lets nobody write for a while.
    asyncpg.ReadOnlySQLTransactionError,
)


def is_unreachable(error: BaseException) -> bool:
    """The database could not be asked, or has no room to answer; asking again is harmless and may succeed."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or is_unreachable(error.orig or error.__cause__ or Exception())
    return isinstance(error, _UNREACHABLE) or isinstance(error.__cause__, _UNREACHABLE)


async def patiently(operation: Callable[[], Awaitable[AnswerT]], *, longest_wait_seconds: float = 5.0) -> AnswerT:
    """Repeat a transaction until the database answers. Only for transactions that may be repeated.

    Waiting here is the back pressure of an outage: a worker that cannot record takes nothing new.
    """
    wait_seconds = 0.1
    while True:
        try:
            return await operation()
        except DATABASE_ERRORS as error:
            if not is_unreachable(error):
                raise
            log.warning("database_unreachable", error=describe_fault(error), wait_seconds=wait_seconds)
        await asyncio.sleep(wait_seconds)
        wait_seconds = min(wait_seconds * 2, longest_wait_seconds)
