"""A store that may be away, as one that at worst knows nothing: the cache saves calls, and must never cost one."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from llm_pool.stores.answers.base import LEASE_SECONDS, AnswerStore, AnswerStoreUnavailableError, Finding, Lease
from llm_pool.types import CompletionResponse
from shared.clock import Clock

REST_SECONDS = 5.0
"""So long is a store that was away left alone, so that requests do not wait for it in turn."""
_ASK_YOURSELF = Finding()

log = structlog.get_logger()
ResultT = TypeVar("ResultT")


class GuardedAnswers:
    """Never raises for a store that cannot be used, and logs its going and coming once each."""

    def __init__(self, store: AnswerStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._is_away = False
        self._rests_until = 0.0

    async def find_or_lease(self, key: str, lease_seconds: float = LEASE_SECONDS) -> Finding:
        return await self._try(lambda: self._store.find_or_lease(key, lease_seconds), _ASK_YOURSELF)

    async def renew(self, lease: Lease, lease_seconds: float = LEASE_SECONDS) -> None:
        await self._try(lambda: self._store.renew(lease, lease_seconds), None)

    async def keep(
        self, key: str, response: CompletionResponse, ttl_seconds: float, lease: Lease | None = None
    ) -> None:
        await self._try(lambda: self._store.keep(key, response, ttl_seconds, lease), None)

    async def give_up(self, lease: Lease) -> None:
        await self._try(lambda: self._store.give_up(lease), None)

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _try(self, operate: Callable[[], Awaitable[ResultT]], otherwise: ResultT) -> ResultT:
        if self._is_away and not self._take_turn():
            return otherwise
        try:
            result = await operate()
        except AnswerStoreUnavailableError as error:
            self._note_away(error)
            return otherwise
        self._note_back()
        return result

    def _take_turn(self) -> bool:
        """Whether to look for the store again: one at a time does."""
        now = self._clock.monotonic()
        if now < self._rests_until:
            return False
        self._rests_until = now + REST_SECONDS
        return True

    def _note_away(self, error: AnswerStoreUnavailableError) -> None:
        self._rests_until = self._clock.monotonic() + REST_SECONDS
        if not self._is_away:
            self._is_away = True
            log.warning("answer_store_lost", error_type=type(error.__cause__ or error).__name__)

    def _note_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("answer_store_found_again")
