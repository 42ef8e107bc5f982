"""OpenTelemetry is loaded where it is configured, and nowhere else."""

import subprocess
import sys

from shared.tracing import NoTracer, open_tracer

LOADED = "import sys; print(sorted(name for name in sys.modules if name.split('.')[0] == 'opentelemetry'))"


def run(code: str) -> str:
    return subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True).stdout.strip()


def test_nothing_of_it_is_loaded_unless_it_is_configured() -> None:
    code = "import llm_pool.pool, shared.telemetry; from shared.tracing import open_tracer; open_tracer(None)"
    assert run(f"{code}; {LOADED}") == "[]"


def test_it_is_loaded_where_an_endpoint_is_set() -> None:
    code = "from shared.tracing import open_tracer; t = open_tracer('http://127.0.0.1:1'); t.close()"
    assert "'opentelemetry.sdk'" in run(f"{code}; {LOADED}")


def test_where_it_is_missing_the_start_is_stopped_with_what_to_install() -> None:
    # An import of a module that stands as None fails like that of a missing one.
    code = "import sys; sys.modules['opentelemetry'] = None; from shared.tracing import open_tracer"
    told = run(
        f"{code}\ntry: open_tracer('http://127.0.0.1:1')\nexcept Exception as error: print(type(error).__name__, error)"
    )
    assert told.startswith("ConfigurationError OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed")


def test_without_a_tracer_a_span_keeps_nothing() -> None:
    tracer = NoTracer()
    with tracer.span("chat", "internal", {}) as outer, tracer.span("chat", "client", {}) as span:
        span.describe({"a": 1})
        span.fail("LLMError")
    assert (outer.trace_id, span.trace_id, tracer.is_recording) == (None, None, False)
    assert not open_tracer("").is_recording
