"""Replays the library's parked calls through a worker's own pool, at the pace of the drain.

They are no jobs and take no slot: each is a task of the worker's loop, claimed under a lease, and a worker that is told
to stop puts back what it has in hand.
"""

import asyncio
from typing import Final, Protocol

import structlog

from llm_pool.client.failed_requests import FailedRequest, FailedRequestQueue, Processor
from llm_pool.types import CompletionRequest, CompletionResponse, EmbeddingRequest, EmbeddingResponse, Response
from orchestrator.failed_requests import drains
from orchestrator.failed_requests.calls import Claimed, PostgresFailedCalls
from orchestrator.failed_requests.drains import CALLS
from orchestrator.failed_requests.policy import choose_order, decide_release
from shared.database import DATABASE_ERRORS, Database
from shared.errors import LLMModelNotFoundError, NotFoundError

log = structlog.get_logger()

MOST_AT_ONCE: Final = 16
"""Replays under way at once, in the whole fleet."""


class AnsweringPool(Protocol):
    """What of a pool is needed here."""

    async def complete(self, request: CompletionRequest, /) -> CompletionResponse: ...

    async def embed(self, request: EmbeddingRequest, /) -> EmbeddingResponse: ...


class CallReplayer:
    """Of one worker process; many of them share the work."""

    def __init__(self, database: Database, pool: AnsweringPool) -> None:
        self._database = database
        self._calls = PostgresFailedCalls(database)
        self._queue = FailedRequestQueue(self._calls)
        self._ask = build_processor(pool)
        self._replaying: set[asyncio.Task[None]] = set()

    async def start_due(self) -> int:
        """Claim what may go now and ask for it in the background; returns how many it were."""
        claimed = await self._claim()
        for each in claimed:
            replaying = asyncio.create_task(self._replay(each))
            self._replaying.add(replaying)
            replaying.add_done_callback(self._replaying.discard)
        if claimed:
            log.info("parked_calls_replayed", count=len(claimed))
        return len(claimed)

    async def wait(self) -> None:
        """Until nothing that was started is under way."""
        await asyncio.gather(*self._replaying, return_exceptions=True)

    async def aclose(self) -> None:
        """Put back what is in hand. The database stays open: it is the worker's."""
        for replaying in self._replaying:
            replaying.cancel()
        await self.wait()

    async def _claim(self) -> list[Claimed]:
        async with self._database.as_system() as connection:
            if not await drains.try_lock(connection, CALLS):
                return []
            room = MOST_AT_ONCE - await drains.count_replaying(connection, CALLS)
            claimed = await self._calls.claim_left(connection, limit=max(0, room))
            for group in choose_order(await drains.read_groups(connection, CALLS)):
                await drains.save_pace(connection, CALLS, group, MOST_AT_ONCE)
                if limit := decide_release(group, most=MOST_AT_ONCE, room=room - len(claimed)):
                    claimed += await self._calls.claim_due(connection, group.model, limit=limit)
        return claimed

    async def _replay(self, claimed: Claimed) -> None:
        try:
            await self._queue.replay(await self._calls.read(claimed), self._ask, set())
        except DATABASE_ERRORS as error:
            # Its lease runs out, and it is asked again.
            log.warning("replay_not_recorded", failed_request_id=str(claimed.id), error=str(error))


def build_processor(pool: AnsweringPool) -> Processor:
    """Asks the pool. A model that only the client's own configuration knows is left to that client."""

    async def ask(failed: FailedRequest) -> Response:
        try:
            match failed.request:
                case CompletionRequest() as request:
                    return await pool.complete(request)
                case EmbeddingRequest() as request:
                    return await pool.embed(request)
        except NotFoundError as error:
            raise LLMModelNotFoundError(f"the workers' catalogue has no {failed.request.model!r}") from error

    return ask
