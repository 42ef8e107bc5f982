"""The order of a group's deployments under each strategy: pure, so each case is a list."""

from collections import Counter
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_pool.call import TokenEstimate
from llm_pool.catalog import Price, Strategy
from llm_pool.routing.strategies import STRATEGIES, Candidate, Turn
from tests.fakes.scripted_provider import deploy


def candidate(
    name: str,
    latency_seconds: float | None = None,
    in_flight: int = 0,
    price: tuple[str, str] | None = None,
    **fields: object,
) -> Candidate:
    known = None if price is None else Price(Decimal(price[0]), Decimal(price[1]))
    return Candidate(deploy(name, **fields), latency_seconds, in_flight, known)


def order(strategy: Strategy, *candidates: Candidate, number: int = 0, draw: float = 0.0, tokens=(100, 100)) -> str:
    turn = Turn(number, draw, TokenEstimate(*tokens))
    return "".join(chosen.deployment.name for chosen in STRATEGIES[strategy](candidates, turn))


A, B, C = candidate("a"), candidate("b"), candidate("c")


def test_each_strategy_of_the_catalogue_is_in_the_table() -> None:
    assert STRATEGIES.keys() == set(get_args(Strategy))


def test_priority_keeps_the_order_of_the_configuration() -> None:
    assert order("priority", candidate("a", 9.0, 7), candidate("b", 1.0)) == "ab"


def test_least_latency_asks_the_unknown_first_and_keeps_the_order_of_equals() -> None:
    assert order("least_latency", A, B, C) == "abc"
    assert order("least_latency", candidate("a", 2.0), candidate("b", 1.0), C) == "cba"
    assert order("least_latency", candidate("a", 1.0), candidate("b", 1.0)) == "ab"


def test_least_busy_asks_who_has_fewest_calls_in_flight() -> None:
    assert order("least_busy", candidate("a", in_flight=3), candidate("b", in_flight=1), C) == "cba"
    assert order("least_busy", A, B) == "ab"


def test_round_robin_lets_each_begin_in_turn() -> None:
    assert [order("round_robin", A, B, C, number=number) for number in range(4)] == ["abc", "bca", "cab", "abc"]


def test_cheapest_looks_at_what_this_request_would_cost() -> None:
    dear_prompt = candidate("a", price=("3", "1"))
    dear_answer = candidate("b", price=("1", "4"))
    assert order("cheapest", dear_prompt, dear_answer, tokens=(1000, 10)) == "ba"
    assert order("cheapest", dear_prompt, dear_answer, tokens=(10, 1000)) == "ab"


def test_cheapest_bounds_the_answer_as_the_deployment_says_where_the_request_does_not() -> None:
    short = candidate("b", price=("1", "2"), default_max_tokens=100)
    long = candidate("a", price=("1", "1"), default_max_tokens=4000)
    assert order("cheapest", long, short, tokens=(10, None)) == "ba"


def test_cheapest_asks_those_without_a_known_price_last_and_the_free_first() -> None:
    assert order("cheapest", A, candidate("b", price=("5", "5")), candidate("c", price=("0", "0"))) == "cba"


def test_weighted_lets_each_begin_as_often_as_its_weight_says() -> None:
    three, one = candidate("a", weight=3.0), candidate("b", weight=1.0)
    begins = Counter(order("weighted", three, one, draw=number / 1000)[0] for number in range(1000))
    assert begins == {"a": 750, "b": 250}


def test_weighted_shares_the_second_place_by_weight_too() -> None:
    group = candidate("a", weight=2.0), candidate("b", weight=1.0), candidate("c", weight=1.0)
    ends = Counter(order("weighted", *group, draw=number / 1200) for number in range(1200))
    expected = {"abc": 300, "acb": 300, "bac": 200, "bca": 100, "cab": 200, "cba": 100}
    assert ends.keys() == expected.keys()
    assert all(abs(ends[name] - count) <= 1 for name, count in expected.items())


def test_weight_zero_comes_last() -> None:
    idle = candidate("a", weight=0.0)
    assert [order("weighted", idle, B, draw=draw) for draw in (0.0, 0.5, 0.999)] == ["ba"] * 3
    assert order("weighted", idle, candidate("d", weight=0.0)) == "ad"


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(
    weights=st.lists(st.floats(0, 1e6), max_size=6),
    draw=st.floats(0, 1, exclude_max=True),
    number=st.integers(0, 100),
)
def test_no_strategy_loses_or_doubles_a_deployment(
    strategy: Strategy, weights: list[float], draw: float, number: int
) -> None:
    names = "abcdef"[: len(weights)]
    group = [candidate(name, weight=weight) for name, weight in zip(names, weights, strict=True)]
    assert sorted(order(strategy, *group, draw=draw, number=number)) == sorted(names)
