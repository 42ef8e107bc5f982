"""What headers say of our quotas; the dialects' own are tested on a server in tests/contracts."""

from datetime import UTC, datetime

import pytest

from llm_pool.providers.quota_headers import ANTHROPIC, NONE, OPENAI, choose_reset, parse_count, read_quota
from shared.attempts import QuotaReading

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(("ours", "the_projects"), [("10", "900"), ("900", "10")])
def test_the_scarcer_of_two_quotas_of_one_kind_is_told(ours: str, the_projects: str) -> None:
    headers = {"x-ratelimit-remaining-tokens": ours, "x-ratelimit-remaining-project-tokens": the_projects}
    assert read_quota(headers, OPENAI, NOW) == (QuotaReading("tokens", "minute", None, 10, None),)


@pytest.mark.parametrize("dialect", [NONE, ANTHROPIC])
def test_headers_of_another_dialect_say_nothing(dialect: tuple) -> None:
    assert read_quota({"x-ratelimit-remaining-tokens": "1000"}, dialect, NOW) == ()


def test_what_cannot_be_understood_is_left_open() -> None:
    headers = {"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "soon"}
    assert read_quota(headers, OPENAI, NOW) == (QuotaReading("requests", "minute", None, None, None),)


@pytest.mark.parametrize(
    ("text", "count"),
    [("7", 7), ("7.0", 7), ("0", 0), ("-1", None), ("", None), (None, None), ("inf", None), ("1e300", None)],
)
def test_a_count(text: str | None, count: int | None) -> None:
    assert parse_count(text) == count


def test_the_wait_is_that_of_what_is_used_up() -> None:
    def reading(remaining: int | None, seconds: float | None) -> QuotaReading:
        return QuotaReading("tokens", "minute", 100, remaining, seconds)

    assert choose_reset([reading(5, 60.0), reading(0, 2.0), reading(0, 3.0)]) == 3.0
    assert choose_reset([reading(0, None), reading(0, 3.0)]) == 3.0
    assert choose_reset([reading(5, 60.0), reading(None, 9.0), reading(0, None)]) is None
    assert choose_reset([]) is None
