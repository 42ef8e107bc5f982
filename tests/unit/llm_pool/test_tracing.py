"""What a request leaves in the log and in spans: by the conventions' names, with ids, and nothing of what was said."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from llm_pool.call import Call, RequestHandler
from llm_pool.catalog import Catalog, ModelGroup, Price
from llm_pool.middleware.tracing import AttemptTracing, Tracing
from llm_pool.types import ChatMessage, CompletionRequest, JsonFormat, Response, ToolCall
from shared.errors import LLMOverloadedError, LLMRateLimitedError, LLMUnavailableError
from shared.otel import OtelTracer
from tests.builders import build_response
from tests.fakes.moving_clock import MovingClock
from tests.fakes.ring import Ring
from tests.fakes.scripted_provider import Script, ask, build_catalog, deploy

QUESTION, ANSWER = "what is asked", "what is answered"


class Collected:
    """A tracer, and the spans it finished."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OtelTracer(provider)

    @property
    def request(self) -> ReadableSpan:
        (span,) = [span for span in self._exporter.get_finished_spans() if span.kind is SpanKind.INTERNAL]
        return span

    @property
    def attempts(self) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]

    def __str__(self) -> str:
        return "".join(span.to_json() for span in self._exporter.get_finished_spans())


@pytest.fixture
def collected() -> Collected:
    return Collected()


def one_group(*names: str) -> Catalog:
    price = Price(Decimal(10), Decimal(10))
    deployments = tuple(deploy(name, price=price) for name in names)
    return build_catalog(ModelGroup("fast", deployments, strategy="priority", retries=1))


def build_ring(tracer: OtelTracer | None, scripts: dict[str, Script], **options: object) -> Ring:
    clock = MovingClock()
    return Ring(
        one_group(*scripts),
        scripts,
        clock,
        around_requests=(Tracing(clock, tracer, **options),),
        around_calls=() if tracer is None else (AttemptTracing(tracer),),
    )


async def test_a_span_for_the_request_and_one_within_it_for_each_try(collected: Collected) -> None:
    scripts = {"a": Script([LLMOverloadedError("down")]), "b": Script()}
    await build_ring(collected.tracer, scripts).answer(ask())
    request = collected.request
    assert request.name == "chat fast"
    assert [span.name for span in collected.attempts] == ["chat a-model", "chat a-model", "chat b-model"]
    assert {span.parent.span_id for span in collected.attempts} == {request.context.span_id}
    assert {span.context.trace_id for span in collected.attempts} == {request.context.trace_id}


async def test_a_try_is_described_by_the_conventions_names(collected: Collected) -> None:
    request = CompletionRequest(
        "fast",
        (ChatMessage("user", QUESTION),),
        temperature=0.5,
        top_p=0.9,
        max_tokens=64,
        json_format=JsonFormat(),
    )
    await build_ring(collected.tracer, {"a": Script()}).answer(request)
    (attempt,) = collected.attempts
    assert dict(attempt.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "a-model",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "scripted-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "llmyard.deployment": "a",
    }


async def test_a_request_is_described_without_the_tokens_of_its_tries(collected: Collected) -> None:
    ring = build_ring(collected.tracer, {"a": Script()})
    await ring.answer(CompletionRequest("fast", (ChatMessage("user", QUESTION),), tenant_id="acme", key_id="team-1"))
    assert ring.call is not None
    assert dict(collected.request.attributes) == {
        "gen_ai.operation.name": "chat",
        "llmyard.model_group": "fast",
        "llmyard.request_id": str(ring.call.request_id),
        "llmyard.tenant_id": "acme",
        "llmyard.key_id": "team-1",
        "llmyard.deployment": "a",
        "gen_ai.response.model": "scripted-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "llmyard.attempts": 1,
        "llmyard.cost_usd": 0.00005,
    }


async def test_a_failure_is_told_by_its_class_and_not_by_its_text(collected: Collected) -> None:
    script = Script([LLMRateLimitedError(f"about {QUESTION}", retry_after_seconds=90.0)])
    with pytest.raises(LLMUnavailableError):
        await build_ring(collected.tracer, {"a": script}).answer(ask())
    (attempt,) = collected.attempts
    assert attempt.attributes["error.type"] == "LLMRateLimitedError"
    assert attempt.attributes["llmyard.retry_after_seconds"] == 90.0
    assert collected.request.attributes["error.type"] == "LLMUnavailableError"
    assert {span.status.status_code for span in (attempt, collected.request)} == {StatusCode.ERROR}
    assert QUESTION not in str(collected)


async def test_a_cancelled_request_ends_its_spans(collected: Collected) -> None:
    script = Script(hangs=True)
    asking = build_ring(collected.tracer, {"a": script}).start(ask())
    await script.started.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (attempt,) = collected.attempts
    assert attempt.attributes["error.type"] == collected.request.attributes["error.type"] == "CancelledError"


async def test_what_was_said_stands_in_no_span_unless_it_is_wanted(collected: Collected) -> None:
    await build_ring(collected.tracer, {"a": Script([ANSWER])}).answer(ask("fast", QUESTION))
    assert QUESTION not in str(collected)
    assert ANSWER not in str(collected)


async def test_what_was_said_stands_in_the_requests_span_where_it_is_wanted(collected: Collected) -> None:
    request = CompletionRequest(
        "fast",
        (
            ChatMessage("system", "be kind"),
            ChatMessage("assistant", tool_calls=(ToolCall("c1", "look", "{}"),)),
            ChatMessage("tool", "sunny", tool_call_id="c1"),
            ChatMessage("user", QUESTION),
        ),
    )
    await build_ring(collected.tracer, {"a": Script([ANSWER])}, shows_content=True).answer(request)
    attributes = collected.request.attributes
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "be kind"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": "{}"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "sunny"}]},
        {"role": "user", "parts": [{"type": "text", "content": QUESTION}]},
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}
    ]
    assert QUESTION not in "".join(span.to_json() for span in collected.attempts)


async def test_a_cached_answer_has_a_span_without_a_try(collected: Collected) -> None:
    async def hit(call: Call, proceed: RequestHandler) -> Response:
        call.cache = "hit"
        return build_response(attempts=())

    clock = MovingClock()
    requests = (Tracing(clock, collected.tracer), hit)
    with capture_logs() as logs:
        await Ring(one_group("a"), {"a": Script()}, clock, around_requests=requests).answer(ask())
    assert (collected.request.attributes["llmyard.cache"], collected.attempts) == ("hit", [])
    assert (logs[0]["cached"], logs[0]["attempts"]) == (True, 0)


async def test_spans_stand_within_those_of_the_program_around(collected: Collected) -> None:
    with collected.tracer.span("theirs", "client", {}):
        await build_ring(collected.tracer, {"a": Script()}).answer(ask())
    theirs = next(span for span in collected.attempts if span.name == "theirs")
    assert collected.request.parent.span_id == theirs.context.span_id


async def test_an_answered_request_is_one_line_with_its_ids_tokens_and_cost(collected: Collected) -> None:
    ring = build_ring(collected.tracer, {"a": Script(takes_seconds=0.25)})
    with capture_logs() as logs:
        await ring.answer(ask())
    assert ring.call is not None
    assert logs == [
        {
            "event": "request_answered",
            "log_level": "debug",
            "request_id": str(ring.call.request_id),
            "trace_id": f"{collected.request.context.trace_id:032x}",
            "model_group": "fast",
            "tenant_id": "acme",
            "deployment": "a",
            "attempts": 1,
            "latency_seconds": 0.25,
            "cached": False,
            "cost_usd": "0.00005",
            "prompt_tokens": 3,
            "completion_tokens": 2,
        }
    ]


@contextmanager
def logging_by(wrapper_class: type) -> Iterator[None]:
    structlog.configure(wrapper_class=wrapper_class)
    try:
        yield
    finally:
        structlog.reset_defaults()


async def test_an_answer_has_no_line_where_nobody_debugs() -> None:
    ring = build_ring(None, {"a": Script()})
    for level, lines in ((logging.INFO, 0), (logging.DEBUG, 1), (logging.WARNING, 0)):
        with logging_by(structlog.make_filtering_bound_logger(level)), capture_logs() as logs:
            await ring.answer(ask())
        assert len(logs) == lines


async def test_a_program_with_loggers_that_do_not_filter_sees_each_answer() -> None:
    with logging_by(structlog.BoundLogger), capture_logs() as logs:
        await build_ring(None, {"a": Script()}).answer(ask())
    assert [each["event"] for each in logs] == ["request_answered"]


async def test_a_failed_request_is_one_line_and_without_a_tracer_it_has_no_trace() -> None:
    ring = build_ring(None, {"a": Script([LLMUnavailableError("down")])})
    with capture_logs() as logs, pytest.raises(LLMUnavailableError):
        await ring.answer(ask("fast", QUESTION))
    assert ring.call is not None
    assert logs == [
        {
            "event": "request_failed",
            "log_level": "warning",
            "request_id": str(ring.call.request_id),
            "model_group": "fast",
            "tenant_id": "acme",
            "error_type": "LLMUnavailableError",
            "attempts": 1,
            "latency_seconds": 0.0,
        }
    ]
