"""The one signature of the whole chain: a call goes in, a response comes out, and each ring may act on both sides.

    Middleware = (Call, next Handler) -> Response

`compose` folds a tuple of middlewares around the innermost handler; the first of the tuple is the outermost.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from llm_pool.catalog import Deployment, ModelGroup
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.providers.base import Provider
from llm_pool.types import (
    Answer,
    Capability,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Response,
    StreamChunk,
)
from shared.attempts import Attempt


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What concerns one run of a request and not its answer; never sent to a provider."""

    budget_tracker: BudgetTracker | None = None
    """Money shared by a chain of calls; checked before, charged after."""
    use_cache: bool | None = None
    """True: also a hot request may be answered from the cache; False: ask anew. None leaves it to the policy."""
    keeps_only_fitting: bool = False
    """An answer that does not fit the request's `json_format` is not kept in the cache."""


DEFAULT_RUN = RunConfig()

AskProvider = Callable[[Provider, Deployment, float], Awaitable[Answer]]
"""Puts a request to one provider, within a bound in seconds: whole, as a stream, or for vectors."""


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """What a request may cost in tokens, as far as can be said before."""

    prompt_tokens: int
    max_completion_tokens: int | None
    """None: as the deployment's `default_max_tokens` says."""

    def bound(self, deployment: Deployment) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.bound_completion(deployment)

    def bound_completion(self, deployment: Deployment) -> int:
        if self.max_completion_tokens is None:
            return deployment.default_max_tokens
        return self.max_completion_tokens


EstimateTokens = Callable[[CompletionRequest | EmbeddingRequest], TokenEstimate]


@dataclass(frozen=True, slots=True)
class Wait:
    """A call waited for a permit."""

    deployment: str
    provider: str
    seconds: float


@dataclass(slots=True)
class Call:
    """One request on its way through the request ring."""

    request: CompletionRequest | EmbeddingRequest
    ask: AskProvider
    needs: frozenset[Capability]
    """What a deployment must be able to do to be asked."""
    estimate_tokens: EstimateTokens
    entered_at: float
    """When the pool took it, by `Clock.monotonic`."""
    deadline: float
    """By `Clock.monotonic`, seconds; no attempt and no wait goes beyond it."""
    config: RunConfig = DEFAULT_RUN
    attempts: list[Attempt] = field(default_factory=list)
    """Everything tried so far, in order; the attempt ring appends."""
    waits: list[Wait] = field(default_factory=list)
    cache: Literal["hit", "miss"] | None = None
    """None: the cache was not asked."""
    _estimate: TokenEstimate | None = field(default=None, init=False, repr=False)
    _request_id: UUID | None = field(default=None, init=False, repr=False)

    @property
    def estimate(self) -> TokenEstimate:
        """Made when it is first asked for: without limits and caps nobody does."""
        if self._estimate is None:
            self._estimate = self.estimate_tokens(self.request)
        return self._estimate

    @property
    def request_id(self) -> UUID:
        """For logs and spans; likewise."""
        if self._request_id is None:
            self._request_id = uuid7()
        return self._request_id

    @property
    def is_streamed(self) -> bool:
        return "stream" in self.needs


@dataclass(frozen=True, slots=True)
class AttemptCall:
    """One call aimed at one deployment, on its way through the attempt ring."""

    call: Call
    deployment: Deployment
    group: ModelGroup
    """The group this deployment was chosen for; it says how often to retry."""
    is_last: bool = True
    """Nobody else of this group could be asked after: a permit is worth waiting for."""
    has_next: bool = False
    """Somebody of this group is asked next: a wait that the provider names need not be sat out."""


CallT = TypeVar("CallT")
AnswerT = TypeVar("AnswerT")


class Middleware(Protocol, Generic[CallT, AnswerT]):
    """One concern, one file. Who has nothing to do after a call may hand on what `proceed` gives, without a wait of
    its own."""

    def __call__(self, call: CallT, proceed: Callable[[CallT], Awaitable[AnswerT]], /) -> Awaitable[AnswerT]: ...


RequestHandler = Callable[[Call], Awaitable[Response]]
AttemptHandler = Callable[[AttemptCall], Awaitable[Answer]]
RequestMiddleware = Middleware[Call, Response]
AttemptMiddleware = Middleware[AttemptCall, Answer]


def compose(
    middlewares: Sequence[Middleware[CallT, AnswerT]], innermost: Callable[[CallT], Awaitable[AnswerT]]
) -> Callable[[CallT], Awaitable[AnswerT]]:
    """The first middleware is the outermost: it sees the call first and the answer last."""
    handler = innermost
    for middleware in reversed(middlewares):
        handler = _enclose(middleware, handler)
    return handler


def _enclose(
    middleware: Middleware[CallT, AnswerT], proceed: Callable[[CallT], Awaitable[AnswerT]]
) -> Callable[[CallT], Awaitable[AnswerT]]:
    def handle(call: CallT) -> Awaitable[AnswerT]:
        return middleware(call, proceed)  # not awaited here, as one more coroutine a ring is most of what a ring costs

    return handle


class CompletionPool(Protocol):
    """What the orchestrator knows of the pool, be it in this process or behind HTTP."""

    async def complete(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> CompletionResponse:
        """Answer the request, or raise an `LLMError` that carries its attempts.

        Raises:
            NotFoundError: no such model group (field `model`).
            LLMUnavailableError: every deployment failed.
            LLMError: a failure that no other deployment would mend.
        """

    def stream(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> AsyncIterator[StreamChunk]:
        """The answer in pieces; the last one carries it whole. Closing the iterator closes the provider's socket.

        Raises:
            LLMStreamBrokenError: it failed after the first piece; before, everything that `complete` raises.
        """

    async def embed(self, request: EmbeddingRequest, config: RunConfig = DEFAULT_RUN) -> EmbeddingResponse:
        """One vector for each input. Raises what `complete` raises."""

    def runs_foreign_code(self, model: str) -> bool:
        """Whether asking this group, or a fallback of it, may run code in this process that came with a catalogue.

        False where there is no such group: nobody is asked then. Never raises, and costs nothing.
        """

    async def aclose(self) -> None:
        """Close connections; the pool cannot be used after."""
