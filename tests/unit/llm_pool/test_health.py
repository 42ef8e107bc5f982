"""What a pool remembers of its deployments: how long they lately took, and what they still owe."""

import pytest

from llm_pool.routing.health import FAILURE_SECONDS, FORGET_AFTER_SECONDS, Health
from tests.fakes.moving_clock import MovingClock


def test_latency_is_a_moving_average_that_forgets() -> None:
    clock = MovingClock()
    health = Health(clock)
    assert health.find_latency("a") is None
    health.record_answer("a", 1.0)
    health.record_answer("a", 2.0)
    assert health.find_latency("a") == pytest.approx(1.3)
    clock.seconds += FORGET_AFTER_SECONDS + 1
    assert health.find_latency("a") is None
    health.record_answer("a", 5.0)
    assert health.find_latency("a") == 5.0


def test_who_refuses_at_once_is_not_taken_for_quick() -> None:
    health = Health(MovingClock())
    health.record_failure("a", 0.001)
    health.record_failure("b", 40.0)
    assert (health.find_latency("a"), health.find_latency("b")) == (FAILURE_SECONDS, 40.0)


def test_calls_in_flight_are_counted() -> None:
    health = Health(MovingClock())
    health.begin("a")
    health.begin("a")
    health.end("a")
    assert (health.count_in_flight("a"), health.count_in_flight("b")) == (1, 0)
