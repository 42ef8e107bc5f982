"""In which order the deployments of a group are asked. Pure: what was measured, counted and drawn is handed in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from llm_pool.call import TokenEstimate
from llm_pool.catalog import Deployment, Price, Strategy


@dataclass(frozen=True, slots=True)
class Candidate:
    """One deployment that could be asked, and what is known of it."""

    deployment: Deployment
    latency_seconds: float | None
    """Lately; None where nothing was lately heard of it."""
    in_flight: int
    """Calls of this pool that it has not answered yet."""
    price: Price | None
    """None where it is not known."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What sets one choice apart from the one before."""

    number: int
    """How many choices this group has had before."""
    draw: float
    """At random, from 0 up to and without 1, where weights decide; else 0."""
    estimate: TokenEstimate
    """What the request may cost in tokens."""


Order = Callable[[Sequence[Candidate], Turn], list[Candidate]]
"""All of the candidates, the one to be asked first in front; equals keep the order of the configuration."""


def order_by_priority(candidates: Sequence[Candidate], _: Turn) -> list[Candidate]:
    """As configured, whatever was measured."""
    return list(candidates)


def order_by_least_latency(candidates: Sequence[Candidate], _: Turn) -> list[Candidate]:
    """The unknown come first, so that each gets measured."""
    return sorted(candidates, key=lambda candidate: candidate.latency_seconds or 0.0)


def order_by_least_busy(candidates: Sequence[Candidate], _: Turn) -> list[Candidate]:
    """As this process sees it: what others have in flight is not counted."""
    return sorted(candidates, key=lambda candidate: candidate.in_flight)


def order_round_robin(candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """Each in turn begins, and those behind it in the configuration follow."""
    first = turn.number % len(candidates) if candidates else 0
    return [*candidates[first:], *candidates[:first]]


def order_by_cheapest(candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """By the most that this request can cost there; those whose price is not known come last, as they may cost any."""
    return sorted(candidates, key=lambda candidate: _choose_cost_key(candidate, turn.estimate))


def order_by_weight(candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """Each begins as often as its weight says, and so on among the rest; those of weight 0 come last.

    One draw suffices: what is left of it after a choice is again evenly spread over those that remain.
    """
    ordered: list[Candidate] = []
    remaining, draw = [candidate for candidate in candidates if candidate.deployment.weight], turn.draw
    while remaining:
        chosen, draw = _draw_by_weight(remaining, draw)
        ordered.append(chosen)
        remaining.remove(chosen)
    return [*ordered, *(candidate for candidate in candidates if not candidate.deployment.weight)]


def _draw_by_weight(candidates: Sequence[Candidate], draw: float) -> tuple[Candidate, float]:
    """The one on whose part of the line from 0 to 1 the draw falls, and where on that part."""
    mark = draw * sum(candidate.deployment.weight for candidate in candidates)
    for chosen in candidates[:-1]:
        if mark < chosen.deployment.weight:
            return chosen, mark / chosen.deployment.weight
        mark -= chosen.deployment.weight
    return candidates[-1], min(mark / candidates[-1].deployment.weight, 1.0)


def _choose_cost_key(candidate: Candidate, estimate: TokenEstimate) -> tuple[bool, Decimal]:
    price = candidate.price
    if price is None:
        return True, Decimal(0)
    completion_tokens = estimate.bound_completion(candidate.deployment)
    return False, (
        price.prompt_usd_per_million * estimate.prompt_tokens + price.completion_usd_per_million * completion_tokens
    )


STRATEGIES: Mapping[Strategy, Order] = {
    "cheapest": order_by_cheapest,
    "least_busy": order_by_least_busy,
    "least_latency": order_by_least_latency,
    "priority": order_by_priority,
    "round_robin": order_round_robin,
    "weighted": order_by_weight,
}
