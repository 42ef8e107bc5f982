"""How the cache lives with its store: one that is away, and one that several processes share."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from llm_pool.cache_key import build_cache_key, build_fingerprints
from llm_pool.call import Call
from llm_pool.middleware.cache import Cache
from llm_pool.policies import CachePolicy
from llm_pool.stores.answers.base import LEASE_SECONDS, AnswerStore, AnswerStoreUnavailableError, Finding, Lease
from llm_pool.stores.answers.disk import DiskAnswers
from llm_pool.stores.answers.memory import MemoryAnswers
from llm_pool.types import CompletionRequest, CompletionResponse
from shared.clock import SystemClock
from shared.errors import LLMUnavailableError
from tests.builders import build_response
from tests.fakes.caching import CATALOG, Model, build_cache, build_call, build_model
from tests.fakes.moving_clock import MovingClock


class LostStore(MemoryAnswers):
    """Away until told otherwise."""

    def __init__(self, clock: MovingClock) -> None:
        super().__init__(clock, 100)
        self.is_away = True
        self.asked = 0

    async def find_or_lease(self, key: str, lease_seconds: float = 1.0) -> Finding:
        self.asked += 1
        if self.is_away:
            raise AnswerStoreUnavailableError from ConnectionRefusedError()
        return await super().find_or_lease(key)


async def test_without_its_store_the_cache_is_as_if_there_were_none_and_says_so_once() -> None:
    clock, model = MovingClock(), build_model()
    store = LostStore(clock)
    cache = build_cache(clock, store)
    with capture_logs() as logs:
        for _ in range(5):
            assert not (await cache(build_call(clock), model)).cached
        store.is_away = False
        clock.seconds += 6
        for _ in range(2):
            await cache(build_call(clock), model)
    assert [(log["event"], log.get("error_type")) for log in logs] == [
        ("answer_store_lost", "ConnectionRefusedError"),
        ("answer_store_found_again", None),
    ]
    assert cache.stats().hits == 1


async def test_a_lost_store_is_not_waited_for_by_each_request() -> None:
    clock, model = MovingClock(), build_model()
    store = LostStore(clock)
    cache = build_cache(clock, store)
    for _ in range(10):
        await cache(build_call(clock), model)
        clock.seconds += 0.1
    assert store.asked == 1


class BusyStore(MemoryAnswers):
    """Somebody else is always asking."""

    async def find_or_lease(self, key: str, lease_seconds: float = 1.0) -> Finding:
        return Finding(is_awaited=True)


async def test_waiting_for_another_process_leaves_half_of_the_time_for_asking() -> None:
    clock, model = MovingClock(), build_model()
    cache = Cache(BusyStore(clock, 100), CachePolicy(), CATALOG, clock, clock.sleep)
    await cache(build_call(clock, timeout_seconds=10), model)
    assert 4.5 <= sum(clock.slept) <= 5
    assert max(clock.slept) <= 0.25


class RecordingStore(DiskAnswers):
    """Hands out leases without needing a server for it, and remembers them."""

    async def find_or_lease(self, key: str, lease_seconds: float = LEASE_SECONDS) -> Finding:
        finding = await super().find_or_lease(key, lease_seconds)
        self.last_lease = finding.lease or self.last_lease
        return finding

    last_lease: Lease | None = None


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RecordingStore]:
    opened = RecordingStore(SystemClock(), tmp_path, 100)
    yield opened
    await opened.aclose()


def find_key(call: Call) -> str:
    assert isinstance(call.request, CompletionRequest)
    return build_cache_key(call.request, build_fingerprints(CATALOG)["fast"])


async def is_leased(store: AnswerStore, call: Call) -> bool:
    return (await store.find_or_lease(find_key(call))).is_awaited


async def test_the_asker_holds_a_lease_until_it_is_answered(store: RecordingStore) -> None:
    clock, model = SystemClock(), Model()
    cache, call = build_cache(clock, store), build_call(clock)
    asking = asyncio.create_task(cache(call, model))
    await model.was_asked.wait()
    assert await is_leased(store, call)
    model.may_answer.set()
    await asking
    assert (await store.find_or_lease(find_key(call))).response is not None


async def test_a_lease_is_renewed_while_its_asker_lives(store: RecordingStore) -> None:
    clock, model = SystemClock(), Model()

    async def hurry(seconds: float) -> None:
        await asyncio.sleep(seconds / 200)

    cache, call = Cache(store, CachePolicy(), CATALOG, clock, hurry), build_call(clock)
    asking = asyncio.create_task(cache(call, model))
    await model.was_asked.wait()
    assert store.last_lease is not None
    await store.renew(store.last_lease, 0.01)
    await asyncio.sleep(0.1)
    assert await is_leased(store, call)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("end", ["failed", "cancelled", "not kept"])
async def test_without_an_answer_the_lease_is_given_up(store: RecordingStore, end: str) -> None:
    def answer(_: int) -> CompletionResponse:
        if end == "failed":
            raise LLMUnavailableError
        return replace(build_response(), deployment="b")

    clock, model = SystemClock(), Model(answer)
    cache, call = build_cache(clock, store), build_call(clock)
    asking = asyncio.create_task(cache(call, model))
    await model.was_asked.wait()
    if end == "cancelled":
        asking.cancel()
    else:
        model.may_answer.set()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await store.find_or_lease(find_key(call))).lease is not None


async def test_an_asker_that_died_is_replaced_when_its_lease_ends(store: RecordingStore) -> None:
    clock, model = SystemClock(), build_model()
    cache, call = build_cache(clock, store), build_call(clock)
    await store.find_or_lease(find_key(call), 0.1)
    started = clock.monotonic()
    assert not (await cache(call, model)).cached
    assert 0.1 <= clock.monotonic() - started < 0.5
