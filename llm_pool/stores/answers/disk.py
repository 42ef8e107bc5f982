"""Answers of one machine, in one SQLite file that its processes share. JSON inside, so that reading it runs nothing."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from llm_pool.stores.answers.base import (
    LEASE_SECONDS,
    PATIENCE_SECONDS,
    AnswerStoreUnavailableError,
    Finding,
    Lease,
    take_back,
)
from llm_pool.stores.answers.codec import FORMAT, dump_answer, find_answer
from llm_pool.stores.finishing import Finishing
from llm_pool.types import CompletionResponse
from shared.clock import Clock

FILE_NAME = f"answers-{FORMAT}.sqlite3"
_BUSY_SECONDS = PATIENCE_SECONDS
"""How long one process waits for another's write, each of which takes less than a millisecond."""
_TABLES = """
create table if not exists answers (
    key text primary key, document blob not null, kept_at real not null, expires_at real not null
) without rowid;
create index if not exists answers_by_age on answers (kept_at);
create table if not exists leases (key text primary key, token text not null, expires_at real not null) without rowid;
"""
_LEASE = """
insert into leases values (:key, :token, :expires_at)
on conflict (key) do update set token = :token, expires_at = :expires_at where expires_at <= :now
"""
_DROP_SURPLUS = """
delete from answers where key in (select key from answers order by kept_at desc limit -1 offset ?)
"""

ResultT = TypeVar("ResultT")


class DiskAnswers:
    """One connection in one thread of its own: SQLite waits for the disk, which the event loop must not."""

    def __init__(self, clock: Clock, directory: Path, max_entries: int) -> None:
        """Nothing is opened or made before it is needed. Times are those of the wall, which all processes share."""
        self._clock = clock
        self._directory = directory
        self._max_entries = max_entries
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")
        self._finishing = Finishing()

    async def find_or_lease(self, key: str, lease_seconds: float = LEASE_SECONDS) -> Finding:
        finding = self._run(lambda database: self._find(database, key) or self._lease(database, key, lease_seconds))
        return await self._finishing.wait_for(finding, undo=partial(take_back, self))

    async def renew(self, lease: Lease, lease_seconds: float = LEASE_SECONDS) -> None:
        values = (self._now() + lease_seconds, lease.key, lease.token)
        renew = "update leases set expires_at = ? where key = ? and token = ?"
        await self._finishing.wait_for(self._run(lambda database: database.execute(renew, values)))

    async def keep(
        self, key: str, response: CompletionResponse, ttl_seconds: float, lease: Lease | None = None
    ) -> None:
        now = self._now()
        values = (key, dump_answer(response), now, now + ttl_seconds)

        def write(database: sqlite3.Connection) -> None:
            database.execute("insert or replace into answers values (?, ?, ?, ?)", values)
            database.execute(_DROP_SURPLUS, (self._max_entries,))
            database.execute("delete from leases where expires_at <= ?", (now,))
            _end(database, lease)

        await self._finishing.wait_for(self._run(write))

    async def give_up(self, lease: Lease) -> None:
        await self._finishing.wait_for(self._run(lambda database: _end(database, lease)))

    async def aclose(self) -> None:
        await self._finishing.aclose()
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)

    def _find(self, database: sqlite3.Connection, key: str) -> Finding | None:
        found = database.execute("select document, expires_at from answers where key = ?", (key,)).fetchone()
        response = None if found is None or found[1] <= self._now() else find_answer(found[0])
        return None if response is None else Finding(response)

    def _lease(self, database: sqlite3.Connection, key: str, lease_seconds: float) -> Finding:
        now, lease = self._now(), Lease(key, uuid4().hex)
        values = {"key": key, "token": lease.token, "now": now, "expires_at": now + lease_seconds}
        if database.execute(_LEASE, values).rowcount == 0:
            return Finding(is_awaited=True)
        # From here on nobody else can write: an answer that was kept since the first look is here now.
        found = self._find(database, key)
        if found is None:
            return Finding(lease=lease)
        _end(database, lease)
        return found

    async def _run(self, action: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """One transaction, in the store's thread."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, action)
        except (sqlite3.Error, OSError) as error:
            raise AnswerStoreUnavailableError from error

    def _transact(self, action: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        if self._connection is None:
            self._connection = _open(self._directory)
        with self._connection:
            return action(self._connection)

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _open(directory: Path) -> sqlite3.Connection:
    """Readable by its owner only: people's questions are answered in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / FILE_NAME
    path.touch(mode=0o600)
    _prepare(path)
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
    # An answer lost in a power cut is asked for again, so nobody waits for the disk to confirm.
    database.execute("pragma synchronous = normal")
    return database


def _prepare(path: Path, tries: int = 20) -> None:
    """Of two processes that make a file write-ahead at once, SQLite fails one instead of letting it wait."""
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as database:
            database.execute("pragma journal_mode = wal")
            database.executescript(_TABLES)
    except sqlite3.OperationalError:
        if tries == 1:
            raise
        time.sleep(_BUSY_SECONDS / 20)
        _prepare(path, tries - 1)


def _end(database: sqlite3.Connection, lease: Lease | None) -> None:
    if lease is not None:
        database.execute("delete from leases where key = ? and token = ?", (lease.key, lease.token))
