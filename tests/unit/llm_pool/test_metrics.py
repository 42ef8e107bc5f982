"""What Prometheus is shown of requests, tries and calls; each number by its name and labels."""

import asyncio
from collections.abc import Awaitable
from decimal import Decimal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_pool.call import AttemptCall, AttemptHandler, Call, RequestHandler, Wait
from llm_pool.catalog import Catalog, ModelGroup
from llm_pool.middleware.metrics import ActiveMetrics, ErrorMetrics, RequestMetrics
from llm_pool.status.metrics import SECONDS_BUCKETS, Metrics, forget_the_dead, open_metrics
from llm_pool.types import Answer, Response
from shared.attempts import Attempt, Usage
from shared.errors import (
    ConfigurationError,
    InputError,
    LLMAuthenticationError,
    LLMCoolingDownError,
    LLMOverloadedError,
    LLMUnavailableError,
)
from tests.builders import NOON, build_response
from tests.fakes.moving_clock import MovingClock
from tests.fakes.ring import Ring
from tests.fakes.scripted_provider import Script, ask, build_catalog, deploy

A = {"provider": "scripted", "model": "a-model"}
B = {"provider": "scripted", "model": "b-model"}
NONE = {"provider": "none", "model": "none"}


def two_deployments() -> Catalog:
    return build_catalog(ModelGroup("fast", (deploy("a"), deploy("b")), strategy="priority", retries=1))


def watch(catalog: Catalog) -> Metrics:
    metrics = Metrics()
    metrics.watch(catalog.deployments)
    return metrics


def build_ring(metrics: Metrics, scripts: dict[str, Script], clock: MovingClock, **more: object) -> Ring:
    return Ring(
        two_deployments(),
        scripts,
        clock,
        around_requests=(RequestMetrics(metrics), *more.get("inside", ())),
        around_tries=(ErrorMetrics(metrics), *more.get("around_tries", ())),
        around_calls=(ActiveMetrics(metrics),),
    )


def read(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def failing(request: Awaitable[Response], error: type[BaseException]) -> None:
    with pytest.raises(error):
        await request


async def test_an_answered_request_counts_once_with_its_tokens_and_its_time() -> None:
    metrics = watch(two_deployments())
    ring = build_ring(metrics, {"a": Script(takes_seconds=0.3), "b": Script()}, MovingClock())
    await ring.answer(ask())
    assert read(metrics, "llm_requests_total", **A, status="success") == 1
    assert read(metrics, "llm_tokens_total", **A, type="prompt") == 3
    assert read(metrics, "llm_tokens_total", **A, type="completion") == 2
    assert read(metrics, "llm_request_latency_seconds_count", **A) == 1
    assert read(metrics, "llm_request_latency_seconds_sum", **A) == pytest.approx(0.3)
    assert read(metrics, "llm_request_latency_seconds_bucket", **A, le="0.25") == 0
    assert read(metrics, "llm_request_latency_seconds_bucket", **A, le="0.5") == 1
    assert read(metrics, "llm_requests_total", **B, status="success") == 0


async def test_a_request_that_fell_back_counts_for_who_answered_and_its_errors_for_who_failed() -> None:
    metrics = watch(two_deployments())
    scripts = {"a": Script([LLMOverloadedError("down")]), "b": Script()}
    await build_ring(metrics, scripts, MovingClock()).answer(ask())
    assert read(metrics, "llm_requests_total", **B, status="success") == 1
    assert read(metrics, "llm_requests_total", **A, status="success") == 0
    assert read(metrics, "llm_errors_total", provider="scripted", error_type="LLMOverloadedError") == 2


async def test_a_failed_request_counts_for_who_was_asked_last() -> None:
    metrics = watch(two_deployments())
    scripts = {"a": Script([LLMOverloadedError("down")]), "b": Script([LLMAuthenticationError("no")])}
    await failing(build_ring(metrics, scripts, MovingClock()).answer(ask()), LLMUnavailableError)
    assert read(metrics, "llm_requests_total", **B, status="error") == 1
    assert read(metrics, "llm_errors_total", provider="scripted", error_type="LLMAuthenticationError") == 1
    assert read(metrics, "llm_request_latency_seconds_count", **B) == 0
    assert read(metrics, "llm_errors_total", provider="none", error_type="LLMUnavailableError") is None


async def test_a_request_that_nobody_was_asked_for_counts_for_none() -> None:
    async def refuse(call: Call, proceed: RequestHandler) -> Response:
        raise InputError("messages", "there is none", "send one")

    metrics = watch(two_deployments())
    ring = build_ring(metrics, {"a": Script(), "b": Script()}, MovingClock(), inside=(refuse,))
    await failing(ring.answer(ask()), InputError)
    assert read(metrics, "llm_requests_total", **NONE, status="error") == 1
    assert read(metrics, "llm_errors_total", provider="none", error_type="InputError") == 1


async def test_a_try_that_our_own_rules_held_back_is_an_error_too() -> None:
    async def cool(call: AttemptCall, proceed: AttemptHandler) -> Answer:
        if call.deployment.name == "a":
            raise LLMCoolingDownError("left alone")
        return await proceed(call)

    metrics = watch(two_deployments())
    ring = build_ring(metrics, {"a": Script(), "b": Script()}, MovingClock(), around_tries=(cool,))
    await ring.answer(ask())
    assert read(metrics, "llm_errors_total", provider="scripted", error_type="LLMCoolingDownError") == 1
    assert read(metrics, "llm_requests_total", **B, status="success") == 1


async def test_a_call_is_active_while_it_is_with_the_provider_and_a_cancelled_one_is_counted() -> None:
    metrics = watch(two_deployments())
    script = Script(hangs=True)
    asking = build_ring(metrics, {"a": script, "b": Script()}, MovingClock()).start(ask())
    await script.started.wait()
    assert read(metrics, "llm_active_requests", provider="scripted") == 1
    asking.cancel()
    await failing(asking, asyncio.CancelledError)
    assert read(metrics, "llm_active_requests", provider="scripted") == 0
    assert read(metrics, "llm_requests_total", **A, status="cancelled") == 1
    assert read(metrics, "llm_errors_total", provider="scripted", error_type="CancelledError") == 1


async def test_no_call_is_active_while_its_retry_waits() -> None:
    metrics, active = watch(two_deployments()), []

    class Clock(MovingClock):
        async def sleep(self, seconds: float) -> None:
            active.append(read(metrics, "llm_active_requests", provider="scripted"))
            await super().sleep(seconds)

    scripts = {"a": Script([LLMOverloadedError("down"), "fine"]), "b": Script()}
    await build_ring(metrics, scripts, Clock()).answer(ask())
    assert active == [0]


async def test_a_cached_answer_is_a_hit_and_not_a_quick_model() -> None:
    async def hit(call: Call, proceed: RequestHandler) -> Response:
        call.cache = "hit"
        return build_response(attempts=())

    async def miss(call: Call, proceed: RequestHandler) -> Response:
        call.cache = "miss"
        return await proceed(call)

    metrics = watch(two_deployments())
    scripts = {"a": Script(), "b": Script()}
    await build_ring(metrics, scripts, MovingClock(), inside=(hit,)).answer(ask())
    await build_ring(metrics, scripts, MovingClock(), inside=(miss,)).answer(ask())
    assert read(metrics, "llm_requests_total", **A, status="cached") == 1
    assert read(metrics, "llm_requests_total", **A, status="success") == 1
    assert read(metrics, "llm_request_latency_seconds_count", **A) == 1
    assert read(metrics, "llm_cache_hits_total") == 1
    assert read(metrics, "llm_cache_misses_total") == 1


async def test_waits_for_permits_are_counted_and_timed() -> None:
    async def wait(call: AttemptCall, proceed: AttemptHandler) -> Answer:
        call.call.waits.append(Wait(call.deployment.name, call.deployment.provider, 0.7))
        return await proceed(call)

    metrics = watch(two_deployments())
    ring = build_ring(metrics, {"a": Script(), "b": Script()}, MovingClock(), around_tries=(wait,))
    await ring.answer(ask())
    assert read(metrics, "llm_rate_limit_waits_total", provider="scripted") == 1
    assert read(metrics, "llm_rate_limit_wait_seconds_sum", provider="scripted") == pytest.approx(0.7)
    assert read(metrics, "llm_rate_limit_wait_seconds_bucket", provider="scripted", le="0.5") == 0


def test_cost_is_added_up_where_it_is_known() -> None:
    metrics = watch(two_deployments())
    for cost in (Decimal("0.25"), None, Decimal("0.5")):
        metrics.count_attempt(Attempt("a", "scripted", "as-served", NOON, 0.1, Usage(1, 1), cost_usd=cost))
    assert read(metrics, "llm_cost_usd_total", **A) == 0.75


def test_no_text_of_a_provider_becomes_a_label() -> None:
    metrics = watch(two_deployments())
    metrics.count_attempt(Attempt("a", "scripted", "free text zzyzx", NOON, 0.1, Usage(1, 1)))
    metrics.count_attempt(Attempt("stranger zzyzx", "stranger zzyzx", "free text zzyzx", NOON, 0.1, Usage(1, 1)))
    metrics.count_request("stranger zzyzx", "error")
    metrics.count_error(deploy("a"), "Errorzzyzx")
    metrics.count_budget_alert("tenant:customer zzyzx")
    metrics.count_budget_alert("whatever zzyzx")
    shown = metrics.expose().body.decode()
    assert "zzyzx" not in shown
    assert read(metrics, "llm_errors_total", provider="scripted", error_type="other") == 1
    assert read(metrics, "llm_budget_alerts_total", account="tenant") == 1
    assert read(metrics, "llm_requests_total", **NONE, status="error") == 1


def test_quotas_are_shown_where_they_are_known() -> None:
    metrics = watch(two_deployments())
    metrics.show_quota("a", "requests_per_minute", 100, 40)
    metrics.show_quota("a", "tokens_per_minute", None, 7)
    metrics.count_quota_warning("a", "requests_per_minute")
    assert read(metrics, "llm_quota_remaining", deployment="a", kind="requests_per_minute") == 40
    assert read(metrics, "llm_quota_limit", deployment="a", kind="requests_per_minute") == 100
    assert read(metrics, "llm_quota_remaining", deployment="a", kind="tokens_per_minute") == 7
    assert read(metrics, "llm_quota_warnings_total", deployment="a", kind="requests_per_minute") == 1


def test_the_names_and_labels_of_every_metric() -> None:
    families = {
        family.name: family
        for family in text_string_to_metric_families(watch(two_deployments()).expose().body.decode())
    }
    shown = {f"{name}_total" if family.type == "counter" else name for name, family in families.items()}
    assert {name for name in shown if not name.endswith("_created")} == {
        "llm_requests_total",
        "llm_tokens_total",
        "llm_request_latency_seconds",
        "llm_cost_usd_total",
        "llm_cache_hits_total",
        "llm_cache_misses_total",
        "llm_rate_limit_waits_total",
        "llm_rate_limit_wait_seconds",
        "llm_errors_total",
        "llm_active_requests",
        "llm_budget_alerts_total",
        "llm_quota_remaining",
        "llm_quota_limit",
        "llm_quota_warnings_total",
    }
    assert SECONDS_BUCKETS == (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def test_a_reader_gets_the_form_it_asks_for() -> None:
    plain, open_metrics_text = Metrics().expose(), Metrics().expose("application/openmetrics-text; version=1.0.0")
    assert plain.content_type.startswith("text/plain")
    assert open_metrics_text.content_type.startswith("application/openmetrics-text")
    assert open_metrics_text.body.endswith(b"# EOF\n")


def test_two_pools_of_one_process_keep_their_own_metrics() -> None:
    first, second = watch(two_deployments()), watch(two_deployments())
    first.count_request("a", "success")
    assert read(second, "llm_requests_total", **A, status="success") == 0


def test_what_the_dead_had_under_way_is_forgotten_and_what_they_counted_is_kept(tmp_path) -> None:
    names = ("gauge_livesum_11.db", "gauge_livemostrecent_11.db", "counter_11.db", "gauge_livesum_12.db", "notes.txt")
    for name in names:
        (tmp_path / name).touch()
    forget_the_dead(tmp_path, is_alive=lambda pid: pid == 12)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_11.db", "gauge_livesum_12.db", "notes.txt"]


def test_a_directory_that_cannot_be_used_stops_the_start(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"^PROMETHEUS_MULTIPROC_DIR is .*, which cannot be used: "):
        open_metrics(tmp_path / "file")
