"""What goes into the pool and what comes out: plain frozen values, the same for every provider."""

from dataclasses import dataclass
from typing import Literal

from shared.attempts import Attempt, Usage

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation, in OpenAI's roles."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One question to a model group."""

    model: str
    """The model group's name, such as `fast` or `quality`."""
    messages: tuple[ChatMessage, ...]
    tenant_id: str | None = None
    """Whom the cost is recorded for."""
    temperature: float | None = None
    """None leaves it to the deployment's default."""
    max_tokens: int | None = None
    """Bound of the answer in tokens; None leaves it to the deployment's default."""
    timeout_seconds: float | None = None
    """Bound of the whole request over all attempts; None leaves it to the group's default."""


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What one provider said to one attempt."""

    content: str
    model: str
    """The model that answered, as the provider names it."""
    finish_reason: FinishReason
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class CompletionResponse:
    """The answer of the pool, with everything that was tried for it."""

    content: str
    model: str
    provider: str
    deployment: str
    finish_reason: FinishReason
    usage: Usage | None
    latency_seconds: float
    """From entering the pool to leaving it, waits and failed attempts included."""
    attempts: tuple[Attempt, ...]
    """In the order they were made; the last one answered."""
