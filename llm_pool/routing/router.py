"""The walk over a group's deployments and its fallbacks until one answers. Retries belong to the attempt ring."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from llm_pool.call import AttemptCall, AttemptHandler, Call
from llm_pool.catalog import Catalog, Deployment, ModelGroup, Price
from llm_pool.routing.health import Health
from llm_pool.routing.reach import Reach, choose_reach
from llm_pool.routing.strategies import STRATEGIES, Candidate, Turn
from llm_pool.types import Answer, Capability, Response, Served
from shared.attempts import sum_costs
from shared.clock import Clock
from shared.errors import LLMError, LLMNoPermitError, LLMTimeoutError, LLMUnavailableError

FindPrice = Callable[[Deployment], Price | None]
"""What a deployment's tokens cost; None where it is not known."""

_draw_at_random = random.SystemRandom().random


def find_configured_price(deployment: Deployment) -> Price | None:
    return deployment.price


@dataclass(frozen=True, slots=True)
class _Failure:
    attempt: AttemptCall
    error: LLMError


class Router:
    """Innermost of the request ring: a call goes in, the first answer comes out."""

    def __init__(
        self,
        catalog: Catalog,
        ask: AttemptHandler,
        health: Health,
        clock: Clock,
        *,
        capabilities: Mapping[str, frozenset[Capability]],
        find_price: FindPrice = find_configured_price,
        draw: Callable[[], float] = _draw_at_random,
    ) -> None:
        """`capabilities` says for each deployment's name what its provider can do."""
        self._catalog = catalog
        self._ask = ask
        self._health = health
        self._clock = clock
        self._capabilities = capabilities
        self._find_price = find_price
        self._draw = draw
        self._turns: dict[str, int] = {}
        self._reach: dict[tuple[str, frozenset[Capability]], tuple[Reach, ...]] = {}

    async def __call__(self, call: Call) -> Response:
        failures: list[_Failure] = []
        for attempt in self._plan(call, failures):
            if self._clock.monotonic() >= call.deadline:
                late = LLMTimeoutError(f"no answer within {call.deadline - call.entered_at:g} s")
                raise _add_attempts(late, call)
            try:
                return self._respond(attempt, await self._measure(attempt))
            except LLMError as error:
                if not error.falls_back and error.falls_back_as not in attempt.group.fall_back_on:
                    _add_attempts(error, call)
                    raise
                failures.append(_Failure(attempt, error))
        raise _add_attempts(_sum_up(failures), call)

    def _plan(self, call: Call, failures: list[_Failure]) -> Iterator[AttemptCall]:
        """Each deployment once, ordered when its group's turn comes, by what is then known.

        Where a group has several, none of them waits for a permit while another might have one. Before the group is
        given up, the one that will have one soonest is asked again, and waits.
        """
        for reach in self._find_reach(call):
            ordered = self._order(reach, call)
            for deployment in ordered:
                has_next = deployment is not ordered[-1]
                yield AttemptCall(call, deployment, reach.group, is_last=len(ordered) == 1, has_next=has_next)
            for attempt in _choose_worth_waiting_for(failures, reach.group):
                yield replace(attempt, is_last=True, has_next=False)

    def _find_reach(self, call: Call) -> tuple[Reach, ...]:
        key = call.request.model, call.needs
        known = self._reach.get(key)
        if known is None:
            known = self._reach[key] = choose_reach(self._catalog, self._capabilities, *key)
        return known

    def _order(self, reach: Reach, call: Call) -> tuple[Deployment, ...]:
        if len(reach.deployments) == 1:
            return reach.deployments
        group = reach.group
        number = self._turns.get(group.name, 0)
        self._turns[group.name] = number + 1
        candidates = [self._describe(deployment, group) for deployment in reach.deployments]
        # As prices below: who draws at random asks the system, which is dear.
        draw = self._draw() if group.strategy == "weighted" else 0.0
        ordered = STRATEGIES[group.strategy](candidates, Turn(number, draw, call.estimate))
        return tuple(candidate.deployment for candidate in ordered)

    def _describe(self, deployment: Deployment, group: ModelGroup) -> Candidate:
        name = deployment.name
        # Prices are looked up only for whom they decide something: it is the one costly look here.
        price = self._find_price(deployment) if group.strategy == "cheapest" else None
        return Candidate(deployment, self._health.find_latency(name), self._health.count_in_flight(name), price)

    async def _measure(self, attempt: AttemptCall) -> Answer:
        """A cancelled call is not measured: how soon its caller lost interest says nothing about the deployment."""
        name, started, before = attempt.deployment.name, self._clock.monotonic(), len(attempt.call.attempts)
        self._health.begin(name)
        try:
            answer = await self._ask(attempt)
        except LLMError as error:
            was_asked = len(attempt.call.attempts) > before
            if was_asked and error.parks:
                self._health.record_failure(name, self._count_seconds(attempt, started))
            raise
        finally:
            self._health.end(name)
        self._health.record_answer(name, self._count_seconds(attempt, started))
        return answer

    def _count_seconds(self, attempt: AttemptCall, started: float) -> float:
        """Of a stream, until its end. Waits for a permit are ours: they would punish whom everybody asks."""
        seconds = self._clock.monotonic() - started
        for wait in attempt.call.waits:
            if wait.deployment == attempt.deployment.name:
                seconds -= wait.seconds
        return max(0.0, seconds)

    def _respond(self, attempt: AttemptCall, answer: Answer) -> Response:
        attempts = tuple(attempt.call.attempts)
        return answer.respond(
            Served(
                provider=attempt.deployment.provider,
                deployment=attempt.deployment.name,
                latency_seconds=self._clock.monotonic() - attempt.call.entered_at,
                attempts=attempts,
                cost_usd=sum_costs(attempts),
            )
        )


def _add_attempts(error: LLMError, call: Call) -> LLMError:
    error.attempts = tuple(call.attempts)
    return error


def _choose_worth_waiting_for(failures: list[_Failure], group: ModelGroup) -> list[AttemptCall]:
    """At most one: who only lacks a permit, and has not waited yet."""
    short_of_permits = [
        failure
        for failure in failures
        if failure.attempt.group is group
        and not failure.attempt.is_last
        and isinstance(failure.error, LLMNoPermitError)
    ]
    soonest = sorted(short_of_permits, key=lambda failure: failure.error.retry_after_seconds or 0.0)
    return [failure.attempt for failure in soonest[:1]]


def _sum_up(failures: list[_Failure]) -> LLMError:
    """What only another request would mend is told as it is; everything else is worth another try later."""
    if failures and not any(failure.error.parks for failure in failures):
        return failures[-1].error
    latest = {failure.attempt.deployment.name: failure.error for failure in failures}
    unavailable = LLMUnavailableError(retry_after_seconds=_choose_retry_after(list(latest.values())))
    unavailable.__cause__ = failures[-1].error if failures else None
    return unavailable


def _choose_retry_after(errors: list[LLMError]) -> float | None:
    """The soonest moment that was named; None as soon as somebody may be back at any moment."""
    waits = [error.retry_after_seconds for error in errors if error.retry_after_seconds is not None]
    is_open = any(error.is_retryable and error.retry_after_seconds is None for error in errors)
    return None if is_open else min(waits, default=None)
