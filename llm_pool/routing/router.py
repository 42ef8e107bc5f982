"""The walk over a group's deployments and its fallbacks until one answers. Retries belong to the attempt ring."""

from collections.abc import Iterator

from llm_pool.call import AttemptCall, AttemptHandler, Call
from llm_pool.catalog import Catalog, ModelGroup
from llm_pool.routing.health import Health
from llm_pool.routing.strategies import STRATEGIES
from llm_pool.types import CompletionResponse, ProviderAnswer
from shared.clock import Clock
from shared.errors import LLMError, LLMTimeoutError, LLMUnavailableError


class Router:
    """Innermost of the request ring: a call goes in, the first answer comes out."""

    def __init__(self, catalog: Catalog, ask: AttemptHandler, health: Health, clock: Clock) -> None:
        self._catalog = catalog
        self._ask = ask
        self._health = health
        self._clock = clock

    async def __call__(self, call: Call) -> CompletionResponse:
        try:
            return await self._walk(call)
        except LLMError as error:
            error.attempts = tuple(call.attempts)
            raise

    async def _walk(self, call: Call) -> CompletionResponse:
        failures: list[LLMError] = []
        for attempt in self._plan(call):
            if self._clock.monotonic() >= call.deadline:
                raise LLMTimeoutError(f"no answer within {call.deadline - call.entered_at:g} s")
            try:
                return self._respond(attempt, await self._measure(attempt))
            except LLMError as error:
                if not error.falls_back:
                    raise
                failures.append(error)
        raise _sum_up(failures)

    def _plan(self, call: Call) -> Iterator[AttemptCall]:
        """Each deployment once; ordered when its group's turn comes, by what is then known."""
        seen: set[str] = set()
        for group in _walk_groups(self._catalog, call.request.model):
            for deployment in STRATEGIES[group.strategy](group.deployments, self._health.latencies()):
                if deployment.name not in seen:
                    seen.add(deployment.name)
                    yield AttemptCall(call, deployment, group)

    async def _measure(self, attempt: AttemptCall) -> ProviderAnswer:
        """A cancelled call is not measured: how soon its caller lost interest says nothing about the deployment."""
        started = self._clock.monotonic()
        try:
            answer = await self._ask(attempt)
        except LLMError:
            self._health.record(attempt.deployment.name, self._clock.monotonic() - started)
            raise
        self._health.record(attempt.deployment.name, self._clock.monotonic() - started)
        return answer

    def _respond(self, attempt: AttemptCall, answer: ProviderAnswer) -> CompletionResponse:
        return CompletionResponse(
            content=answer.content,
            model=answer.model,
            provider=attempt.deployment.provider,
            deployment=attempt.deployment.name,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            latency_seconds=self._clock.monotonic() - attempt.call.entered_at,
            attempts=tuple(attempt.call.attempts),
        )


def _walk_groups(catalog: Catalog, name: str) -> Iterator[ModelGroup]:
    group = catalog.get_group(name)
    yield group
    for fallback in group.fallbacks:
        yield from _walk_groups(catalog, fallback)


def _sum_up(failures: list[LLMError]) -> LLMUnavailableError:
    """The soonest moment that a provider named is when the request is worth another try."""
    waits = [error.retry_after_seconds for error in failures if error.retry_after_seconds is not None]
    unavailable = LLMUnavailableError(retry_after_seconds=min(waits, default=None))
    unavailable.__cause__ = failures[-1] if failures else None
    return unavailable
