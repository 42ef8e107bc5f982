"""Requests that nobody could answer, kept to be asked again: the seam, its rules, and a store in memory.

The store of a whole installation is the orchestrator's affair.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from llm_pool.types import CompletionRequest, EmbeddingRequest, Response
from shared.clock import Clock, SystemClock
from shared.errors import InputError, LLMError, LLMUnavailableError

log = structlog.get_logger()

Operation = Literal["chat", "generate", "embed"]
State = Literal["parked", "replaying", "answered", "discarded"]
Age = Literal["under_a_minute", "under_an_hour", "under_a_day", "older"]

AGE_BOUNDS_SECONDS: Final[Mapping[Age, float]] = {
    "under_a_minute": 60.0,
    "under_an_hour": 3_600.0,
    "under_a_day": 86_400.0,
}
KEPT_ENDED: Final = 1000
"""Of the memory store; the oldest of those that are answered or discarded go first."""
FIRST_WAIT_SECONDS: Final = 5.0
"""How long one is left alone at least; twice as long each time it comes back."""
LONGEST_WAIT_SECONDS: Final = 30.0
"""And no longer, unless a provider asks for it."""
LONGEST_ASKED_SECONDS: Final = 30 * 86_400.0
"""What a provider can ask for; anything beyond is a mistake of its."""


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """One of them."""

    id: str
    operation: Operation
    request: CompletionRequest | EmbeddingRequest
    state: State
    tries: int
    """How often it was asked again; each replay has its number, and only the latest may record how it ended."""
    error_type: str
    error_message: str
    next_try_at: datetime
    """Workers do not ask again before; `process_queue()` does."""
    response: Response | None = None
    """Once it is answered."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many there are, and how long they have waited."""

    by_state: Mapping[State, int]
    oldest_parked_seconds: float | None
    """Age of the oldest that still waits; None if none does."""
    parked_by_age: Mapping[Age, int] = field(default_factory=dict)
    """How many of those that still wait have done so for how long; ages that nothing has are left out."""


@dataclass(frozen=True, slots=True)
class ProcessedQueue:
    """What one walk over the queue came to."""

    answered: int
    still_failing: int
    """All that still waits, those included that were not asked again because their model is out."""
    discarded: int = 0
    """Asking again will never help: the request itself is wrong."""


Processor = Callable[[FailedRequest], Awaitable[Response]]
"""Asks again; raises an `LLMError` or an `InputError` where that fails."""


class FailedRequestStore(Protocol):
    """Where they are kept. Two processes may work on one store at once: a claim is given to one of them."""

    async def add(self, operation: Operation, request: CompletionRequest | EmbeddingRequest, error: LLMError) -> str:
        """Gives the id."""

    async def find(self, request_id: str) -> FailedRequest | None:
        """None: there is none of that id, or it has been forgotten."""

    async def claim(self, after: str | None, besides: Collection[str]) -> FailedRequest | None:
        """The next one behind the id `after` that waits, or whose replay was never heard of again; none of the
        models `besides`. It is being replayed then, until it is recorded.
        """

    def hold(self, claimed: FailedRequest, /) -> AbstractAsyncContextManager[None]:
        """Keep the claim alive while the block runs, however long a model thinks."""

    async def record_answer(self, claimed: FailedRequest, response: Response) -> None:
        """Nothing, if somebody has claimed it since; so below."""

    async def record_failure(self, claimed: FailedRequest, error: Exception, state: State) -> None:
        """It goes back to `parked`, or is `discarded`."""

    async def read_stats(self) -> QueueStats: ...

    async def aclose(self) -> None: ...


class FailedRequestQueue:
    """What a client does with them."""

    def __init__(self, store: FailedRequestStore | None = None) -> None:
        """In memory, unless a store is given."""
        self._store = store or MemoryFailedRequests()

    async def enqueue(self, operation: Operation, params: CompletionRequest | EmbeddingRequest, error: LLMError) -> str:
        """Gives the id by which the answer can be found."""
        request_id = await self._store.add(operation, params, error)
        log.warning("request_queued", failed_request_id=request_id, operation=operation, model_group=params.model)
        return request_id

    async def find(self, request_id: str) -> FailedRequest | None:
        return await self._store.find(request_id)

    async def get_stats(self) -> QueueStats:
        return await self._store.read_stats()

    async def process_all(self, processor: Processor) -> ProcessedQueue:
        """Ask each that waits once more, the oldest first. A model found to be out is not asked again this time."""
        counted: dict[State, int] = {"answered": 0, "parked": 0, "discarded": 0}
        out: set[str] = set()
        claimed = await self._store.claim(None, out)
        while claimed is not None:
            state = await self.replay(claimed, processor, out)
            counted[state] += 1
            claimed = await self._store.claim(claimed.id, out)
        still_failing = (await self._store.read_stats()).by_state.get("parked", 0)
        return ProcessedQueue(counted["answered"], still_failing, counted["discarded"])

    async def replay(self, claimed: FailedRequest, processor: Processor, out: set[str]) -> State:
        """Ask one once more that was claimed, and record how that ended; a model that is out is added to `out`."""
        try:
            async with self._store.hold(claimed):
                response = await processor(claimed)
        except (LLMError, InputError) as error:
            if isinstance(error, LLMUnavailableError):
                out.add(claimed.request.model)
            state = decide_state(error)
            await self._store.record_failure(claimed, error, state)
            return state
        except BaseException as surprise:
            await asyncio.shield(self._store.record_failure(claimed, Exception(type(surprise).__name__), "parked"))
            raise
        await self._store.record_answer(claimed, response)
        return "answered"

    async def aclose(self) -> None:
        await self._store.aclose()


def find_retry_after(error: Exception) -> float | None:
    """What the provider asked us to wait, where it was one that failed and it said so."""
    return error.retry_after_seconds if isinstance(error, LLMError) else None


def count_by_age(ages_seconds: Iterable[float]) -> Mapping[Age, int]:
    """How many are how old; each counts once."""
    return dict(Counter(_name_age(seconds) for seconds in ages_seconds))


def _name_age(seconds: float) -> Age:
    return next((name for name, bound_seconds in AGE_BOUNDS_SECONDS.items() if seconds < bound_seconds), "older")


def bound_asked_seconds(retry_after_seconds: float | None) -> float:
    """What a provider asked us to wait, as far as it can be meant."""
    return max(0.0, min(LONGEST_ASKED_SECONDS, retry_after_seconds or 0.0))


def decide_wait_seconds(retry_after_seconds: float | None, tries: int) -> float:
    """How long one is left alone that was asked again so many times: longer each time, so that others go meanwhile."""
    by_itself = min(FIRST_WAIT_SECONDS * 2.0 ** min(tries, 30), LONGEST_WAIT_SECONDS)
    return max(bound_asked_seconds(retry_after_seconds), by_itself)


def decide_state(error: LLMError | InputError) -> State:
    """What time may mend waits on."""
    return "parked" if isinstance(error, LLMError) and error.parks else "discarded"


@dataclass(slots=True)
class _Entry:
    failed: FailedRequest
    added_at: float


class MemoryFailedRequests:
    """Gone with its process; each client has one unless it is given another."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def add(self, operation: Operation, request: CompletionRequest | EmbeddingRequest, error: LLMError) -> str:
        request_id = str(uuid7())
        next_try_at = self._decide_next_try(error, 0)
        failed = FailedRequest(
            request_id, operation, request, "parked", 0, type(error).__name__, str(error), next_try_at
        )
        self._entries[request_id] = _Entry(failed, self._clock.monotonic())
        return request_id

    async def find(self, request_id: str) -> FailedRequest | None:
        entry = self._entries.get(request_id)
        return None if entry is None else entry.failed

    async def claim(self, after: str | None, besides: Collection[str]) -> FailedRequest | None:
        for entry in self._entries.values():
            failed = entry.failed
            is_behind = after is None or failed.id > after
            if failed.state == "parked" and is_behind and failed.request.model not in besides:
                entry.failed = replace(failed, state="replaying", tries=failed.tries + 1)
                return entry.failed
        return None

    def hold(self, _: FailedRequest, /) -> AbstractAsyncContextManager[None]:
        """A claim ends with its process, and so does this store."""
        return nullcontext()

    async def record_answer(self, claimed: FailedRequest, response: Response) -> None:
        self._record(claimed, replace(claimed, state="answered", response=response))

    async def record_failure(self, claimed: FailedRequest, error: Exception, state: State) -> None:
        failed = replace(
            claimed,
            state=state,
            error_type=type(error).__name__,
            error_message=str(error),
            next_try_at=self._decide_next_try(error, claimed.tries),
        )
        self._record(claimed, failed)

    async def read_stats(self) -> QueueStats:
        by_state: dict[State, int] = {}
        for entry in self._entries.values():
            by_state[entry.failed.state] = by_state.get(entry.failed.state, 0) + 1
        ages = [self._clock.monotonic() - e.added_at for e in self._entries.values() if e.failed.state == "parked"]
        return QueueStats(by_state, max(ages, default=None), count_by_age(ages))

    async def aclose(self) -> None:
        """Nothing was opened."""

    def _decide_next_try(self, error: Exception, tries: int) -> datetime:
        return self._clock.now() + timedelta(seconds=decide_wait_seconds(find_retry_after(error), tries))

    def _record(self, claimed: FailedRequest, ended: FailedRequest) -> None:
        entry = self._entries.get(claimed.id)
        if entry is not None and entry.failed.state == "replaying" and entry.failed.tries == claimed.tries:
            entry.failed = ended
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        ended = [id_ for id_, entry in self._entries.items() if entry.failed.state in ("answered", "discarded")]
        for request_id in ended[: max(0, len(ended) - KEPT_ENDED)]:
            del self._entries[request_id]


def is_request_id(text: str) -> bool:
    """Ids are UUIDs; anything else can be no one's."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True
