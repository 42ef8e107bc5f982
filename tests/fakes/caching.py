"""A model behind a cache, without a pool around them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llm_pool.call import DEFAULT_RUN, Call, RunConfig, TokenEstimate
from llm_pool.catalog import ModelGroup
from llm_pool.middleware.cache import Cache
from llm_pool.policies import CachePolicy
from llm_pool.stores.answers.base import AnswerStore
from llm_pool.stores.answers.memory import MemoryAnswers
from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse
from shared.clock import Clock
from tests.builders import build_response
from tests.fakes.scripted_provider import build_catalog, deploy

CATALOG = build_catalog(ModelGroup("fast", (deploy("a"),), fallbacks=("slow",)), ModelGroup("slow", (deploy("b"),)))


def build_cache(clock: Clock, store: AnswerStore | None = None, **policy: Any) -> Cache:
    return Cache(store or MemoryAnswers(clock, 100), CachePolicy(**policy), CATALOG, clock)


async def never_asked(*_: Any) -> Any:
    raise AssertionError("the handler in the test answers, not a provider")


def build_call(
    clock: Clock,
    *,
    run: RunConfig = DEFAULT_RUN,
    is_streamed: bool = False,
    timeout_seconds: float = 60.0,
    **fields: Any,
) -> Call:
    """A cool request of one message, unless the test says otherwise."""
    values: dict[str, Any] = {"temperature": 0.0, "tenant_id": "acme", **fields}
    request = CompletionRequest("fast", (ChatMessage("user", values.pop("content", "hello")),), **values)
    now = clock.monotonic()
    needs = frozenset({"chat", "stream"}) if is_streamed else frozenset({"chat"})
    return Call(request, never_asked, needs, lambda _: TokenEstimate(1, None), now, now + timeout_seconds, run)


@dataclass
class Model:
    """Answers what `answer` makes of the number of the call, once it may."""

    answer: Callable[[int], CompletionResponse] = lambda number: build_response(f"answer {number}")
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)
    was_cancelled: int = 0

    async def __call__(self, call: Call) -> CompletionResponse:
        self.calls.append(call)
        self.was_asked.set()
        number = len(self.calls)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.was_cancelled += 1
            raise
        return self.answer(number)


def build_model(answer: Callable[[int], CompletionResponse] | None = None) -> Model:
    """One that answers at once."""
    model = Model() if answer is None else Model(answer)
    model.may_answer.set()
    return model
