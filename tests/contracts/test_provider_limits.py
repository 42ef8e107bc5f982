"""What providers say of when to come back and how much is left, and what we bear at most; against a real server."""

import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llm_pool.providers.http import Connections, HttpAnswer
from llm_pool.providers.openai_errors import map_error
from llm_pool.providers.quota_headers import NONE
from shared import errors
from shared.attempts import QuotaReading
from tests.contracts.served import ask, fail, fail_stream, opened, read
from tests.fakes.dialects import ANTHROPIC, DIALECTS, GROQ, OLLAMA, OPENAI, TOGETHER, Dialect
from tests.fakes.provider_server import pour, send_json, send_stream, serve

Headers = Mapping[str, str]
Fail = Callable[..., Awaitable[errors.LLMError]]


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


RETRY_AFTER_FORMS: Mapping[str, tuple[Callable[[], Headers], float]] = {
    "seconds": (lambda: {"Retry-After": "3"}, 3.0),
    "float": (lambda: {"Retry-After": "0.5"}, 0.5),
    "milliseconds": (lambda: {"retry-after-ms": "250"}, 0.25),
    "milliseconds before seconds": (lambda: {"Retry-After": "1", "retry-after-ms": "250"}, 0.25),
    "HTTP date": (lambda: {"Retry-After": format_datetime(in_an_hour(), usegmt=True)}, 3600.0),
    "minutes as Go writes them": (lambda: {"Retry-After": "6m0s"}, 360.0),
    "seconds as Go writes them": (lambda: {"Retry-After": "8.64s"}, 8.64),
    "milliseconds as Go writes them": (lambda: {"Retry-After": "6ms"}, 0.006),
    "hours as Go writes them": (lambda: {"Retry-After": "1h2m3.5s"}, 3723.5),
    "RFC 3339": (lambda: {"Retry-After": in_an_hour().isoformat().replace("+00:00", "Z")}, 3600.0),
    "seconds of the epoch": (lambda: {"Retry-After": str(int(in_an_hour().timestamp()))}, 3600.0),
    "milliseconds of the epoch": (lambda: {"Retry-After": str(int(in_an_hour().timestamp() * 1000))}, 3600.0),
}


WAYS = pytest.mark.parametrize("fail", [fail, fail_stream], ids=["whole", "streamed"])


@WAYS
@pytest.mark.parametrize("form", RETRY_AFTER_FORMS)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
async def test_the_wait_that_a_full_quota_asks_for(dialect: Dialect, form: str, fail: Fail) -> None:
    build_headers, seconds = RETRY_AFTER_FORMS[form]
    error = await fail(dialect, send_json(dialect.error("slow down"), 429, build_headers()))
    assert type(error) is errors.LLMRateLimitedError
    assert error.retry_after_seconds == pytest.approx(seconds, rel=0.01)


@WAYS
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
async def test_who_is_overloaded_may_name_a_wait_too(dialect: Dialect, status: int, fail: Fail) -> None:
    error = await fail(dialect, send_json(dialect.error("later"), status, {"Retry-After": "9"}))
    assert type(error) is errors.LLMOverloadedError
    assert error.retry_after_seconds == 9


@WAYS
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
async def test_a_wait_that_cannot_be_read_is_none(dialect: Dialect, fail: Fail) -> None:
    error = await fail(dialect, send_json(dialect.error("slow down"), 429, {"Retry-After": "soon"}))
    assert type(error) is errors.LLMRateLimitedError
    assert error.retry_after_seconds is None


async def test_gemini_names_its_wait_in_the_body_which_is_a_list() -> None:
    details = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "250"}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27.4s"},
    ]
    body = [{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": details}}]
    error = await fail(OPENAI, send_json(body, 429), provider="gemini")
    assert type(error) is errors.LLMRateLimitedError
    assert error.retry_after_seconds == 27.4
    (reading,) = error.quota
    assert (reading.kind, reading.period, reading.limit, reading.remaining) == ("requests", "day", 250, 0)
    assert 0 < reading.resets_in_seconds <= 86_400


@pytest.mark.parametrize(
    ("now", "resets_at"),
    [
        (datetime(2026, 1, 2, 7, 59, tzinfo=UTC), datetime(2026, 1, 2, 8, tzinfo=UTC)),
        (datetime(2026, 1, 2, 8, 0, tzinfo=UTC), datetime(2026, 1, 3, 8, tzinfo=UTC)),
        (datetime(2026, 7, 2, 23, 0, tzinfo=UTC), datetime(2026, 7, 3, 8, tzinfo=UTC)),
    ],
)
def test_geminis_day_ends_at_midnight_in_california_and_of_its_minutes_nobody_knows(
    now: datetime, resets_at: datetime
) -> None:
    ids = ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "GenerateContentInputTokensPerModelPerMinute-FreeTier")
    violations = [{"quotaId": quota_id, "quotaValue": "250"} for quota_id in ids]
    body = {"error": {"code": 429, "details": [{"violations": violations}]}}
    day, minute = map_error(HttpAnswer(429, {}, body), NONE, now).quota
    assert now + timedelta(seconds=day.resets_in_seconds) == resets_at
    assert (minute.period, minute.resets_in_seconds) == ("minute", None)


FULL_OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "6m0s",
}
READ_OPENAI = (QuotaReading("requests", "minute", 500, 499, 0.12), QuotaReading("tokens", "minute", 30000, 0, 360.0))


@WAYS
@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=lambda dialect: dialect.provider)
async def test_without_a_wait_the_reset_of_what_is_used_up_is_one(dialect: Dialect, fail: Fail) -> None:
    error = await fail(dialect, send_json(dialect.error("slow down"), 429, FULL_OPENAI))
    assert error.retry_after_seconds == 360.0
    assert error.quota == READ_OPENAI


async def test_a_named_wait_goes_before_the_reset() -> None:
    error = await fail(OPENAI, send_json(OPENAI.error("slow down"), 429, {**FULL_OPENAI, "Retry-After": "2"}))
    assert error.retry_after_seconds == 2


@pytest.mark.parametrize(
    ("dialect", "headers", "expected"),
    [
        (OPENAI, FULL_OPENAI, READ_OPENAI),
        (
            GROQ,
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
                "x-ratelimit-limit-tokens": "18000",
                "x-ratelimit-remaining-tokens": "17997",
                "x-ratelimit-reset-tokens": "7.66s",
            },
            (
                QuotaReading("requests", "day", 14400, 14370, pytest.approx(179.56)),
                QuotaReading("tokens", "minute", 18000, 17997, 7.66),
            ),
        ),
        (
            TOGETHER,
            {
                "x-ratelimit-limit": "10",
                "x-ratelimit-remaining": "9",
                "x-ratelimit-reset": "1",
                "x-tokenlimit-limit": "3000",
                "x-tokenlimit-remaining": "0",
            },
            (
                QuotaReading("requests", "minute", 600, None, 1.0),
                QuotaReading("tokens", "minute", 180_000, 0, 1.0),
            ),
        ),
        (OLLAMA, FULL_OPENAI, READ_OPENAI),
        (OPENAI, {"Date": "today"}, ()),
        (OLLAMA, {"Date": "today"}, ()),
    ],
    ids=["openai", "groq", "together", "ollama", "none", "none of ollama"],
)
async def test_what_the_headers_of_an_answer_say_of_our_quotas(
    dialect: Dialect, headers: Headers, expected: tuple[QuotaReading, ...]
) -> None:
    async with opened(dialect) as (provider, server):
        server.behave = send_json(dialect.answer("fine", dialect.stopped), headers=headers)
        assert (await ask(provider)).quota == expected
        server.behave = send_stream(dialect, dialect.stream("fine"), headers=headers)
        assert (await read(provider)).quota == expected


async def test_anthropic_names_the_moment_of_its_resets() -> None:
    resets_at = in_an_hour().isoformat().replace("+00:00", "Z")
    headers = {
        f"anthropic-ratelimit-{kind}-{field}": value
        for kind in ("requests", "input-tokens", "output-tokens")
        for field, value in {"limit": "50", "remaining": "49", "reset": resets_at}.items()
    }
    async with opened(ANTHROPIC) as (provider, server):
        server.behave = send_json(ANTHROPIC.answer("fine", "end_turn"), headers=headers)
        quota = (await ask(provider)).quota
    assert [reading.kind for reading in quota] == ["requests", "input_tokens", "output_tokens"]
    assert {(reading.limit, reading.remaining) for reading in quota} == {(50, 49)}
    assert quota[0].resets_in_seconds == pytest.approx(3600, rel=0.01)


@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=lambda dialect: dialect.provider)
async def test_a_stream_that_breaks_tells_what_its_headers_said(dialect: Dialect) -> None:
    error = await fail_stream(dialect, send_stream(dialect, dialect.pieces(["fi"]), headers=FULL_OPENAI))
    assert type(error) is errors.LLMStreamBrokenError
    assert error.quota == READ_OPENAI


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
async def test_an_answer_that_is_too_large_is_not_taken_in(dialect: Dialect) -> None:
    for behave in (send_json(dialect.answer("x" * 100_000, dialect.stopped)), pour):
        async with opened(dialect, Connections(largest_answer_bytes=50_000)) as (provider, server):
            server.behave = behave
            with pytest.raises(errors.LLMBrokenAnswerError, match="too large"):
                await ask(provider)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
async def test_a_stream_that_is_too_large_is_given_up(dialect: Dialect) -> None:
    async with opened(dialect, Connections(largest_answer_bytes=50_000)) as (provider, server):
        server.behave = send_stream(dialect, dialect.stream(*["x" * 10_000] * 10))
        with pytest.raises(errors.LLMStreamBrokenError, match="too large"):
            await read(provider)


async def test_a_host_that_does_not_shake_hands_is_not_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # whoever comes after these finds the queue full
            each.setblocking(False)
            each.connect_ex(address)
        connections = Connections(connect_seconds=0.3)
        started = time.monotonic()
        with pytest.raises(errors.LLMConnectionError) as caught:
            await connections.post_json(f"http://127.0.0.1:{address[1]}", {}, {}, timeout_seconds=10)
        assert not caught.value.was_sent
        assert 0.25 < time.monotonic() - started < 2
        await connections.aclose()
        for each in waiting:
            each.close()


async def test_the_proxies_of_the_environment_get_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with opened(OPENAI) as (provider, server):
        await ask(provider)
        assert len(server.received) == 1


async def test_a_cookie_of_one_answer_does_not_travel_with_the_next_question() -> None:
    connections = Connections()
    async with serve(OPENAI) as server:
        server.behave = send_json(OPENAI.answer("fine", OPENAI.stopped), headers={"Set-Cookie": "account=one"})
        url = server.base_url.replace("127.0.0.1", "localhost")  # of an address alone nobody takes cookies
        for _ in range(2):
            await connections.post_json(url + "/chat/completions", {}, {}, 5.0)
        assert [each.headers.get("Cookie") for each in server.received] == [None, None]
    await connections.aclose()
