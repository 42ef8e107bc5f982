"""Spans as a seam: nobody but `shared.otel` knows OpenTelemetry, and it is loaded only where it is configured."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, cast

from shared.errors import ConfigurationError

SpanKind = Literal["internal", "client"]
"""Work of ours, or a call to somebody else."""
AttributeValue = str | bool | int | float | Sequence[str]


class Span(Protocol):
    """A piece of work under way."""

    trace_id: str | None
    """32 hexadecimal digits, as backends show it; None where nothing is traced."""

    def describe(self, attributes: Mapping[str, AttributeValue]) -> None:
        """What is known of it by now, besides what it began with."""

    def fail(self, error_type: str) -> None:
        """It did not do what it was for."""


class Tracer(Protocol):
    """Where spans go."""

    is_recording: bool
    """False: attributes need not be put together."""

    def span(self, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue]) -> AbstractContextManager[Span]:
        """Lasts as long as the block, within the span that is current there."""

    def close(self) -> None:
        """Send what is not sent yet; waits for it."""


class _NoSpan:
    """Is told of everything and keeps nothing."""

    trace_id: str | None = None

    def describe(self, attributes: Mapping[str, AttributeValue]) -> None: ...

    def fail(self, error_type: str) -> None: ...


class NoTracer:
    """Nothing is traced."""

    is_recording = False
    _nothing: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(
        self,
        name: str,  # noqa: ARG002 - the seam's signature
        kind: SpanKind,  # noqa: ARG002 - likewise
        attributes: Mapping[str, AttributeValue],  # noqa: ARG002 - likewise
    ) -> AbstractContextManager[Span]:
        return self._nothing

    def close(self) -> None:
        """Nothing was kept."""


def open_tracer(endpoint: str | None) -> Tracer:
    """OpenTelemetry's where an endpoint is set, else none. The SDK reads OTEL_* itself, the endpoint included.

    Raises:
        ConfigurationError: the SDK is not installed.
    """
    if not endpoint:
        return NoTracer()
    try:
        otel = importlib.import_module("shared.otel")
    except ImportError as error:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'llmyard[otel]'."
        ) from error
    return cast(Callable[[], Tracer], otel.open_otlp_tracer)()
