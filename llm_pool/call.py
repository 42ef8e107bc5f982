"""The one signature of the whole chain: a call goes in, a response comes out, and each ring may act on both sides.

    Middleware = (Call, next Handler) -> CompletionResponse

`compose` folds a tuple of middlewares around the innermost handler; the first of the tuple is the outermost.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from llm_pool.catalog import Deployment, ModelGroup
from llm_pool.types import CompletionRequest, CompletionResponse, ProviderAnswer
from shared.attempts import Attempt


@dataclass(slots=True)
class Call:
    """One request on its way through the request ring."""

    request: CompletionRequest
    entered_at: float
    """When the pool took it, by `Clock.monotonic`."""
    deadline: float
    """By `Clock.monotonic`, seconds; no attempt and no wait goes beyond it."""
    attempts: list[Attempt] = field(default_factory=list)
    """Everything tried so far, in order; the attempt ring appends."""


@dataclass(frozen=True, slots=True)
class AttemptCall:
    """One call aimed at one deployment, on its way through the attempt ring."""

    call: Call
    deployment: Deployment
    group: ModelGroup
    """The group this deployment was chosen for; it says how often to retry."""


CallT = TypeVar("CallT")
AnswerT = TypeVar("AnswerT")


class Middleware(Protocol, Generic[CallT, AnswerT]):
    """One concern, one file."""

    async def __call__(self, call: CallT, proceed: Callable[[CallT], Awaitable[AnswerT]], /) -> AnswerT: ...


RequestHandler = Callable[[Call], Awaitable[CompletionResponse]]
AttemptHandler = Callable[[AttemptCall], Awaitable[ProviderAnswer]]
RequestMiddleware = Middleware[Call, CompletionResponse]
AttemptMiddleware = Middleware[AttemptCall, ProviderAnswer]


def compose(
    middlewares: Sequence[Middleware[CallT, AnswerT]], innermost: Callable[[CallT], Awaitable[AnswerT]]
) -> Callable[[CallT], Awaitable[AnswerT]]:
    """The first middleware is the outermost: it sees the call first and the answer last."""
    handler = innermost
    for middleware in reversed(middlewares):
        handler = partial(_step, middleware, handler)
    return handler


async def _step(
    middleware: Middleware[CallT, AnswerT], proceed: Callable[[CallT], Awaitable[AnswerT]], call: CallT
) -> AnswerT:
    return await middleware(call, proceed)


class CompletionPool(Protocol):
    """What the orchestrator knows of the pool, be it in this process or behind HTTP."""

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        """Answer the request, or raise an `LLMError` that carries its attempts.

        Raises:
            NotFoundError: no such model group (field `model`).
            LLMUnavailableError: every deployment failed.
            LLMError: a failure that no other deployment would mend.
        """

    async def aclose(self) -> None:
        """Close connections; the pool cannot be used after."""
