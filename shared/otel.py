"""Spans into OpenTelemetry. The only file that imports it; `shared.tracing.open_tracer` loads it where configured."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from shared import genai_names
from shared.tracing import AttributeValue, Span, SpanKind

_KINDS: Final[Mapping[SpanKind, trace.SpanKind]] = {
    "internal": trace.SpanKind.INTERNAL,
    "client": trace.SpanKind.CLIENT,
}


class OtelSpan:
    """See `shared.tracing.Span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.trace_id: str | None = trace.format_trace_id(span.get_span_context().trace_id)

    def describe(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._span.set_attributes(attributes)

    def fail(self, error_type: str) -> None:
        """Without the error's text: it may quote what was said."""
        self._span.set_attribute(genai_names.ERROR_TYPE, error_type)
        self._span.set_status(trace.StatusCode.ERROR)


class OtelTracer:
    """See `shared.tracing.Tracer`. Spans stand within those of the program around us, where it has some."""

    is_recording = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("llmyard")

    @contextmanager
    def span(self, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue]) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            kind=_KINDS[kind],
            attributes=attributes,
            record_exception=False,  # its text may quote what was said; who fails a span says why
            set_status_on_exception=False,
        ) as span:
            yield OtelSpan(span)

    def close(self) -> None:
        self._provider.shutdown()


def open_otlp_tracer() -> OtelTracer:
    """Sends spans over HTTP from a thread of its own; the SDK reads endpoint, headers and sampling from OTEL_*."""
    service = Resource({"service.name": "llmyard"})
    provider = TracerProvider(resource=service.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OtelTracer(provider)
