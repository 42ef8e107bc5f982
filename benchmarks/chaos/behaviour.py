"""How the model server treats a call, as its control endpoint is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Applies to the questions that begin with the prefix it is set for."""

    delay_seconds: float = 0.0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """Such as Retry-After."""
    error: Mapping[str, object] = field(default_factory=dict)
    """The body's `error` when `status` is not 200; a fitting one if it is empty."""
    hold: bool = False
    """Wait until `ModelServer.release` names the call, or the caller hangs up."""
    hold_after_half: bool = False
    """As `hold`, but with the headers and half of the body sent."""
    cut: bool = False
    """Abort the connection instead of answering."""


def choose_behaviour(behaviours: Mapping[str, Behaviour], question: str) -> Behaviour:
    """That of the longest prefix; without one the server answers at once."""
    fitting = [prefix for prefix in behaviours if question.startswith(prefix)]
    return behaviours[max(fitting, key=len)] if fitting else Behaviour()
