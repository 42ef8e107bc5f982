"""What every store of answers does alike: in memory, in Redis, in a file."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pytest

from llm_pool.stores.answers.base import AnswerStore, AnswerStoreUnavailableError, Finding
from llm_pool.stores.answers.disk import FILE_NAME, DiskAnswers
from llm_pool.stores.answers.memory import MemoryAnswers
from llm_pool.stores.answers.redis import RedisAnswers
from llm_pool.types import CompletionResponse, ToolCall
from shared.attempts import Usage
from shared.redis_client import open_redis
from tests.fakes.moving_clock import MovingClock

ANSWER = CompletionResponse(
    "ja \N{GRINNING FACE}",
    "model-1",
    "scripted",
    "a",
    "tool_calls",
    Usage(3, 2, 1),
    0.25,
    (),
    (ToolCall("call-1", "find", '{"q": "ü"}'),),
    Decimal(0),
    cached=True,
)
TTL = 60.0
SHORT = 0.05


@dataclass
class Yard:
    """One place where answers are kept, and the stores of several processes over it."""

    stores: tuple[AnswerStore, AnswerStore]
    clock: MovingClock
    is_real_time: bool

    @property
    def store(self) -> AnswerStore:
        return self.stores[0]

    async def pass_time(self, seconds: float) -> None:
        self.clock.seconds += seconds
        if self.is_real_time:
            await asyncio.sleep(seconds)


@asynccontextmanager
async def open_memory(request: pytest.FixtureRequest, clock: MovingClock) -> AsyncIterator[Yard]:
    store = MemoryAnswers(clock, max_entries=3)
    yield Yard((store, store), clock, is_real_time=False)


@asynccontextmanager
async def open_redis_yard(request: pytest.FixtureRequest, clock: MovingClock) -> AsyncIterator[Yard]:
    url = request.getfixturevalue("redis_url")
    async with open_redis(url) as one, open_redis(url) as another:
        yield Yard((RedisAnswers(one, 3), RedisAnswers(another, 3)), clock, is_real_time=True)


@asynccontextmanager
async def open_disk(request: pytest.FixtureRequest, clock: MovingClock) -> AsyncIterator[Yard]:
    directory = request.getfixturevalue("tmp_path") / "answers"
    one, another = DiskAnswers(clock, directory, 3), DiskAnswers(clock, directory, 3)
    yield Yard((one, another), clock, is_real_time=False)
    await asyncio.gather(one.aclose(), another.aclose())


OPENERS = {"memory": open_memory, "redis": open_redis_yard, "disk": open_disk}
ROOT = Path(__file__).parents[2]
SHARED = ["redis", "disk"]
"""Those that several processes share."""


@pytest.fixture(params=OPENERS)
async def yard(request: pytest.FixtureRequest) -> AsyncIterator[Yard]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(OPENERS[request.param](request, MovingClock()))


on_shared_stores = pytest.mark.parametrize("yard", SHARED, indirect=True)


async def find(store: AnswerStore, key: str) -> CompletionResponse | None:
    """Leaves no lease behind."""
    finding = await store.find_or_lease(key)
    if finding.lease is not None:
        await store.give_up(finding.lease)
    return finding.response


async def test_an_answer_comes_back_as_it_was_kept(yard: Yard) -> None:
    assert await find(yard.store, "k") is None
    await yard.store.keep("k", ANSWER, TTL)
    assert await find(yard.store, "k") == ANSWER
    assert await find(yard.store, "other") is None


async def test_a_newer_answer_takes_the_place_of_an_older(yard: Yard) -> None:
    await yard.store.keep("k", ANSWER, TTL)
    await yard.store.keep("k", replace(ANSWER, content="newer"), TTL)
    found = await find(yard.store, "k")
    assert found is not None
    assert found.content == "newer"


async def test_an_answer_is_kept_for_its_time_and_no_longer(yard: Yard) -> None:
    await yard.store.keep("short", ANSWER, SHORT)
    await yard.store.keep("long", ANSWER, TTL)
    await yard.pass_time(2 * SHORT)
    assert await find(yard.store, "short") is None
    assert await find(yard.store, "long") == ANSWER


async def test_the_oldest_go_first_when_there_are_too_many(yard: Yard) -> None:
    for number in range(5):
        await yard.store.keep(f"k{number}", ANSWER, TTL)
        await yard.pass_time(0.002)
    assert [await find(yard.store, f"k{number}") is not None for number in range(5)] == [False, False, True, True, True]


async def test_keeping_again_makes_an_answer_young(yard: Yard) -> None:
    for key in ("a", "b", "c", "a", "d"):
        await yard.store.keep(key, ANSWER, TTL)
        await yard.pass_time(0.002)
    assert await find(yard.store, "a") == ANSWER
    assert await find(yard.store, "b") is None


@on_shared_stores
async def test_another_process_finds_what_one_kept(yard: Yard) -> None:
    one, another = yard.stores
    await one.keep("k", ANSWER, TTL)
    assert await find(another, "k") == ANSWER


@on_shared_stores
async def test_one_may_ask_and_the_others_wait(yard: Yard) -> None:
    findings = await asyncio.gather(*(store.find_or_lease("k") for store in yard.stores * 10))
    assert len([finding for finding in findings if finding.lease is not None]) == 1
    assert [finding for finding in findings if finding.lease is None] == [Finding(is_awaited=True)] * 19
    assert (await yard.store.find_or_lease("other")).lease is not None


@on_shared_stores
async def test_the_answer_ends_the_lease(yard: Yard) -> None:
    one, another = yard.stores
    lease = (await one.find_or_lease("k")).lease
    await one.keep("k", ANSWER, SHORT, lease)
    assert (await another.find_or_lease("k")).response == ANSWER
    await yard.pass_time(2 * SHORT)
    assert (await another.find_or_lease("k")).lease is not None


@on_shared_stores
async def test_a_lease_that_is_given_up_is_free_at_once(yard: Yard) -> None:
    one, another = yard.stores
    lease = (await one.find_or_lease("k")).lease
    assert lease is not None
    await one.give_up(lease)
    assert (await another.find_or_lease("k")).lease is not None


@on_shared_stores
async def test_the_lease_of_an_asker_that_died_ends_by_itself(yard: Yard) -> None:
    one, another = yard.stores
    await one.find_or_lease("k", SHORT)
    assert (await another.find_or_lease("k")).is_awaited
    await yard.pass_time(2 * SHORT)
    assert (await another.find_or_lease("k")).lease is not None


@on_shared_stores
async def test_a_renewed_lease_goes_on(yard: Yard) -> None:
    one, another = yard.stores
    lease = (await one.find_or_lease("k", SHORT)).lease
    assert lease is not None
    await one.renew(lease, TTL)
    await yard.pass_time(2 * SHORT)
    assert (await another.find_or_lease("k")).is_awaited


@on_shared_stores
async def test_who_lost_a_lease_cannot_end_or_renew_its_successors(yard: Yard) -> None:
    one, another = yard.stores
    lost = (await one.find_or_lease("k", SHORT)).lease
    assert lost is not None
    await yard.pass_time(2 * SHORT)
    successor = (await another.find_or_lease("k", 4 * SHORT)).lease
    assert successor is not None
    await one.renew(lost, TTL)
    await one.give_up(lost)
    assert (await one.find_or_lease("k")).is_awaited
    await yard.pass_time(5 * SHORT)
    assert (await one.find_or_lease("k")).lease is not None


async def test_redis_gives_a_lease_again_to_who_asks_twice_with_one_token(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        store = RedisAnswers(client)
        keys = ["llm_pool:{answers}:1:answer:k", "llm_pool:{answers}:1:lease:k"]
        assert [await store._find_or_lease(keys, ["token", 1000]) for _ in range(2)] == [1, 1]


async def test_redis_keeps_no_key_for_ever(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        store = RedisAnswers(client)
        await store.keep("k", ANSWER, TTL)
        await store.find_or_lease("other")
        keys = await client.keys("*")
        assert len(keys) == 3
        assert all([0 < await client.pttl(key) <= TTL * 1000 for key in keys])


async def test_redis_that_is_away_is_named_as_such() -> None:
    async with open_redis("redis://127.0.0.1:1/0") as client:
        store = RedisAnswers(client)
        with pytest.raises(AnswerStoreUnavailableError):
            await store.find_or_lease("k")
        with pytest.raises(AnswerStoreUnavailableError):
            await store.keep("k", ANSWER, TTL)


async def test_redis_that_does_not_answer_is_given_up() -> None:
    server = await asyncio.start_server(lambda *_: asyncio.sleep(10), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_redis(f"redis://127.0.0.1:{port}/0") as client:
        with pytest.raises(AnswerStoreUnavailableError):
            await RedisAnswers(client, patience_seconds=0.05).find_or_lease("k")


async def test_what_cannot_be_read_is_asked_anew(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await client.set("llm_pool:{answers}:1:answer:k", b'{"content": 7}')
        assert await RedisAnswers(client).find_or_lease("k") == Finding()


async def test_the_file_is_its_owners_and_holds_json(tmp_path: Path) -> None:
    store = DiskAnswers(MovingClock(), tmp_path / "answers", 3)
    assert not (tmp_path / "answers").exists()
    await store.keep("k", ANSWER, TTL)
    file = tmp_path / "answers" / FILE_NAME
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    await store.aclose()
    assert b'"content":"ja' in file.read_bytes()


async def test_answers_outlive_the_process(tmp_path: Path) -> None:
    clock = MovingClock()
    before = DiskAnswers(clock, tmp_path, 3)
    await before.keep("k", ANSWER, TTL)
    await before.aclose()
    after = DiskAnswers(clock, tmp_path, 3)
    assert await find(after, "k") == ANSWER
    await after.aclose()


async def test_opening_the_file_waits_for_another_process_that_is_writing(tmp_path: Path) -> None:
    # SQLite itself lets nobody wait who would make a file write-ahead.
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    other.execute("begin immediate")
    store = DiskAnswers(MovingClock(), tmp_path, 3)
    finding = asyncio.create_task(store.find_or_lease("k"))
    await asyncio.sleep(0.1)
    assert not finding.done()
    other.close()
    assert (await finding).lease is not None
    await store.aclose()


async def test_a_file_that_is_no_database_is_named_as_unavailable(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("not a database, and longer than the header of one would have to be" * 20)
    store = DiskAnswers(MovingClock(), tmp_path, 3)
    with pytest.raises(AnswerStoreUnavailableError):
        await store.find_or_lease("k")
    await store.aclose()


@pytest.mark.parametrize("kind", SHARED)
def test_fifty_equal_requests_in_several_processes_are_one_call(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue("redis_url") if kind == "redis" else str(tmp_path / "answers")
    calls = tmp_path / "calls"
    members = [
        subprocess.Popen([sys.executable, "-m", "tests.fakes.cache_member", kind, place, str(calls), "17"], cwd=ROOT)
        for _ in range(3)
    ]
    assert [member.wait(30) for member in members] == [0, 0, 0]
    assert calls.read_text() == "called\n"
