"""What a pool says without an answer from a model: how long a prompt is, and who is there."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from llm_pool.asking.asking import TokenCount
from llm_pool.asking.inspection import Inspection
from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.providers.base import BaseProvider
from llm_pool.types import Capability, ChatMessage, CompletionRequest, ProviderAnswer
from shared.errors import LLMAuthenticationError, LLMError, NotFoundError
from tests.fakes.scripted_provider import build_catalog, deploy

COUNTING: frozenset[Capability] = frozenset({"chat", "count_tokens"})


@dataclass
class Counter(BaseProvider):
    """Counts, or fails to; is there, or not."""

    capabilities: frozenset[Capability] = COUNTING
    error: LLMError | None = None
    check: Callable[[], bool] = lambda: True
    hangs: bool = False

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        raise AssertionError("nobody asks it")

    async def count_tokens(self, request: CompletionRequest, timeout_seconds: float) -> int:
        if self.error is not None:
            raise self.error
        return 42

    async def is_healthy(self, timeout_seconds: float) -> bool:
        if self.hangs:
            await asyncio.Event().wait()
        return self.check()


def inspect(catalog: Catalog, **providers: Counter) -> Inspection:
    return Inspection(catalog, providers, estimate_by_name)


def estimate_by_name(request: CompletionRequest, model: str) -> int:
    return len(model)


def ask(model: str = "quality") -> CompletionRequest:
    return CompletionRequest(model, (ChatMessage("user", "hello"),))


def group(*deployments: Deployment) -> Catalog:
    return build_catalog(ModelGroup("quality", deployments, fallbacks=("fast",)), ModelGroup("fast", (deploy("fall"),)))


async def test_a_provider_that_counts_is_asked() -> None:
    assert await inspect(group(deploy("a")), a=Counter()).count_tokens(ask()) == TokenCount(42, is_exact=True)


@pytest.mark.parametrize(
    ("deployment", "provider"),
    [
        (deploy("a"), Counter(capabilities=frozenset({"chat"}))),
        (deploy("a", supports=("chat",)), Counter()),
        (deploy("a"), Counter(error=LLMAuthenticationError("no"))),
    ],
)
async def test_where_none_counts_the_prompt_is_estimated(deployment: Deployment, provider: Counter) -> None:
    count = await inspect(group(deployment), a=provider).count_tokens(ask())
    assert count == TokenCount(len("a-model"), is_exact=False)


async def test_a_group_without_deployments_counts_like_its_fallback() -> None:
    assert await inspect(group(), fall=Counter()).count_tokens(ask()) == TokenCount(42, is_exact=True)


async def test_a_group_that_nobody_serves_is_estimated() -> None:
    catalog = Catalog({"quality": ModelGroup("quality", ())})
    assert await inspect(catalog).count_tokens(ask()) == TokenCount(len("quality"), is_exact=False)


async def test_an_unknown_group() -> None:
    with pytest.raises(NotFoundError):
        await inspect(group()).count_tokens(ask("best"))


async def test_health_never_raises_and_never_hangs() -> None:
    def crash() -> bool:
        raise ZeroDivisionError

    started = time.monotonic()
    answers = await inspect(
        group(), well=Counter(), ill=Counter(check=lambda: False), broken=Counter(check=crash), slow=Counter(hangs=True)
    ).health(0.05)
    assert answers == {"well": True, "ill": False, "broken": False, "slow": False}
    assert time.monotonic() - started < 1
