"""A fleet of worker processes on one Valkey fills the limits of its deployments and never breaks them, as seen by the
model server that counts.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.fleet_member import LIMITS
from tests.acceptance.quota_server import QuotaServer

ROOT = Path(__file__).parents[2]
MEMBERS = 8
MINUTE = 60.0
PATIENCE_SECONDS = 90.0

Arrivals = Sequence[tuple[float, int]]
"""Moment and weight of each request."""


@contextmanager
def run_fleet(redis_url: str, model_url: str) -> Iterator[None]:
    """All begin together."""
    command = (sys.executable, "-m", "tests.acceptance.fleet_member", redis_url, model_url)
    with ExitStack() as stack:
        members = [start_member(stack, command) for _ in range(MEMBERS)]
        for member in members:
            assert member.stdout is not None
            assert member.stdout.readline() == "ready\n"
        for member in members:
            assert member.stdin is not None
            member.stdin.write("go\n")
            member.stdin.flush()
        yield


def start_member(stack: ExitStack, command: Sequence[str]) -> subprocess.Popen[str]:
    member = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(member.communicate)
    stack.callback(member.kill)
    return member


def find_most_in_a_minute(arrivals: Arrivals) -> int:
    """Of all sliding minutes, one beginning at each arrival."""
    most, oldest, used = 0, 0, 0
    for moment, weight in arrivals:
        used += weight
        while moment - arrivals[oldest][0] >= MINUTE:
            used -= arrivals[oldest][1]
            oldest += 1
        most = max(most, used)
    return most


def list_lags(arrivals: Arrivals) -> list[float]:
    """Seconds after which as much came again as in the first minute, from each place in it."""
    moments = [moment for moment, weight in arrivals for _ in range(weight)]
    first = count_first_minute(arrivals)
    lags = [later - moment for moment, later in zip(moments, moments[first:], strict=False)]
    assert len(lags) > first * 0.9, "too few came for this to be measured"
    return lags


def measure_use(arrivals: Arrivals, limit: int) -> float:
    """Share of the limit."""
    lags = list_lags(arrivals)
    return (count_first_minute(arrivals) / limit) * MINUTE / (sum(lags) / len(lags))


def count_first_minute(arrivals: Arrivals) -> int:
    return sum(weight for moment, weight in arrivals if moment - arrivals[0][0] < MINUTE)


def test_the_measures_tell_a_broken_limit_and_an_unused_one() -> None:
    even = [(place / 8, 1) for place in range(960)]
    assert find_most_in_a_minute(even) == 480
    assert measure_use(even, 480) == 1.0
    assert measure_use([(2 * moment, weight) for moment, weight in even], 480) == 0.5
    assert find_most_in_a_minute([*even, (119.9375, 5)]) == 485


@pytest.mark.timeout(150)
@pytest.mark.long
def test_eight_processes_use_what_they_are_allowed_and_never_more(redis_url: str) -> None:
    server = QuotaServer(delay_seconds=1.0)
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    try:
        with run_fleet(redis_url, server.url):
            while not has_seen_two_minutes(server) and time.monotonic() < give_up_at:
                time.sleep(0.25)
    finally:
        server.close()

    by_requests = [(moment, 1) for moment, _ in sorted(server.arrivals["short-of-requests"])]
    by_tokens = sorted(server.arrivals["short-of-tokens"])
    assert find_most_in_a_minute(by_requests) <= LIMITS.requests_per_minute
    assert find_most_in_a_minute(by_tokens) <= LIMITS.tokens_per_minute
    assert find_most_in_a_minute([(moment, 1) for moment, _ in by_tokens]) <= LIMITS.requests_per_minute
    assert find_most_in_a_minute(sorted(server.arrivals["short-of-requests"])) <= LIMITS.tokens_per_minute
    used_requests = measure_use(by_requests, LIMITS.requests_per_minute)
    used_tokens = measure_use(by_tokens, LIMITS.tokens_per_minute)
    soonest = min(list_lags(by_requests) + list_lags(by_tokens))
    print(
        f"used {used_requests:.1%} of the requests and {used_tokens:.1%} of the tokens; came again in {soonest:.2f} s"
    )
    assert used_requests >= 0.95
    assert used_tokens >= 0.95


def has_seen_two_minutes(server: QuotaServer) -> bool:
    requests = len(server.arrivals["short-of-requests"])
    tokens = sum(tokens for _, tokens in server.arrivals["short-of-tokens"])
    return requests >= 1.95 * LIMITS.requests_per_minute and tokens >= 1.95 * LIMITS.tokens_per_minute
