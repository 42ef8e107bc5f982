"""What goes into the pool and what comes out: plain frozen values, the same for every provider."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NamedTuple

from shared.attempts import Attempt, QuotaReading, Usage
from shared.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Capability = Literal["chat", "stream", "tools", "json", "embed", "count_tokens"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called."""

    id: str
    """As the provider numbers it; the answer to it names the same."""
    name: str
    arguments: str
    """JSON as the model wrote it, which need not fit the tool's parameters."""
    provider_data: str | None = None
    """JSON that its provider wants back with the call, such as Gemini's signed thoughts; nobody else reads it."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation, in OpenAI's roles."""

    role: Role
    content: str = ""
    name: str | None = None
    """Who of several speaks, where a provider can tell them apart."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant: what it wanted called."""
    tool_call_id: str | None = None
    """Of a tool: which call this answers."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may ask for."""

    name: str
    description: str
    parameters: Mapping[str, object] = field(hash=False)
    """JSON schema of its arguments, an object."""
    strict: bool = False
    """Arguments must fit the schema, at providers that can enforce it."""


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The answer is to be JSON, and of this shape where one is given."""

    schema: Mapping[str, object] | None = field(default=None, hash=False)
    """JSON schema; None is any object."""
    name: str = "answer"
    """What providers call the schema; letters, digits and underscores."""

    @property
    def shape(self) -> Mapping[str, object]:
        """The schema, or that of any object."""
        return {"type": "object"} if self.schema is None else self.schema


@dataclass(frozen=True, slots=True)
class Purse:
    """Money that many requests share, over all workers and days; what they name it is its identity."""

    name: str
    limit_usd: Decimal


@dataclass(frozen=True, slots=True)
class Request:
    """What every request says, whatever it asks for."""

    model: str
    """The model group's name, such as `fast` or `quality`."""
    tenant_id: str | None = field(default=None, kw_only=True)
    """Whom the cost is recorded for."""
    key_id: str | None = field(default=None, kw_only=True)
    """Which of the caller's keys asks, where budgets are kept by key; a name, never the key itself."""
    purse: Purse | None = field(default=None, kw_only=True)
    """What this request and all others of that purse may cost together."""
    timeout_seconds: float | None = field(default=None, kw_only=True)
    """Bound of the whole request over all attempts; None leaves it to the group's default."""


@dataclass(frozen=True, slots=True)
class CompletionRequest(Request):
    """One question to a model group."""

    messages: tuple[ChatMessage, ...]
    temperature: float | None = field(default=None, kw_only=True)
    """None leaves it to the deployment's default; so do the next three."""
    max_tokens: int | None = field(default=None, kw_only=True)
    """Bound of the answer in tokens."""
    top_p: float | None = field(default=None, kw_only=True)
    stop: tuple[str, ...] = field(default=(), kw_only=True)
    """Texts that end the answer."""
    tools: tuple[Tool, ...] = field(default=(), kw_only=True)
    tool_choice: str = field(default="auto", kw_only=True)
    """`auto`, `none`, `required`, or the name of the one tool to call."""
    json_format: JsonFormat | None = field(default=None, kw_only=True)
    user: str | None = field(default=None, kw_only=True)
    """Whom the caller serves, for the provider's abuse monitoring."""
    metadata: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False)
    """Stands in logs and spans; not sent to providers."""

    def __post_init__(self) -> None:
        """A mapping in the place of a message would pass for one until somebody reads it.

        Raises:
            InputError: one of the messages is none.
        """
        for index, message in enumerate(self.messages):
            if not isinstance(message, ChatMessage):
                raise InputError(f"messages.{index}", "it is no ChatMessage", "write ChatMessage('user', 'a text')")

    def list_texts(self) -> Iterator[tuple[str, str]]:
        """Everything the model is to read, with the field it stands in."""
        for index, message in enumerate(self.messages):
            yield f"messages.{index}.content", message.content


@dataclass(frozen=True, slots=True)
class EmbeddingRequest(Request):
    """Texts to be turned into vectors."""

    inputs: tuple[str, ...]
    dimensions: int | None = field(default=None, kw_only=True)
    """Length of the vectors, at models that can shorten them."""

    def list_texts(self) -> Iterator[tuple[str, str]]:
        """Everything the model is to read, with the field it stands in."""
        for index, text in enumerate(self.inputs):
            yield f"inputs.{index}", text


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What one provider said to one attempt."""

    content: str
    model: str
    """The model that answered, as the provider names it."""
    finish_reason: FinishReason
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    quota: tuple[QuotaReading, ...] = ()
    cost_usd: Decimal | None = None
    """As the provider itself tells it; nearly none does."""

    def respond(self, served: "Served") -> "CompletionResponse":
        return CompletionResponse(
            content=self.content,
            model=self.model,
            provider=served.provider,
            deployment=served.deployment,
            finish_reason=self.finish_reason,
            usage=self.usage,
            latency_seconds=served.latency_seconds,
            attempts=served.attempts,
            tool_calls=self.tool_calls,
            cost_usd=served.cost_usd,
        )


@dataclass(frozen=True, slots=True)
class EmbeddingAnswer:
    """What one provider said to one attempt at an embedding."""

    vectors: tuple[tuple[float, ...], ...]
    """One for each input, in their order."""
    model: str
    usage: Usage | None = None
    quota: tuple[QuotaReading, ...] = ()
    cost_usd: Decimal | None = None

    def respond(self, served: "Served") -> "EmbeddingResponse":
        return EmbeddingResponse(
            vectors=self.vectors,
            model=self.model,
            provider=served.provider,
            deployment=served.deployment,
            usage=self.usage,
            latency_seconds=served.latency_seconds,
            attempts=served.attempts,
            cost_usd=served.cost_usd,
        )


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call in a stream."""

    index: int
    """Which of the answer's tool calls, from 0."""
    id: str | None = None
    """On a call's first piece; so is the name."""
    name: str | None = None
    arguments: str = ""
    """What is to be appended to the arguments."""
    provider_data: str | None = None
    """See `ToolCall`; told once."""


@dataclass(frozen=True, slots=True)
class ProviderChunk:
    """A piece of one provider's stream; what a provider does not say in this piece is left empty."""

    delta: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    """The terminal marker: a stream without one was cut off. Chunks after it may still bring the usage."""
    usage: Usage | None = None
    model: str | None = None
    quota: tuple[QuotaReading, ...] = ()
    cost_usd: Decimal | None = None
    is_thinking: bool = False
    """The model said something to itself: it is not still, though nothing of it is handed on."""


class Served(NamedTuple):
    """Who answered a request, and at what cost."""

    provider: str
    deployment: str
    latency_seconds: float
    """From entering the pool to leaving it, waits and failed attempts included."""
    attempts: tuple[Attempt, ...]
    """In the order they were made; the last one answered."""
    cost_usd: Decimal | None
    """Of all attempts together; None where a price is not known, which is not the same as nothing."""


@dataclass(frozen=True, slots=True)
class CompletionResponse:
    """The answer of the pool, with everything that was tried for it. See `Served` for the fields they share."""

    content: str
    model: str
    provider: str
    deployment: str
    finish_reason: FinishReason
    usage: Usage | None
    latency_seconds: float
    attempts: tuple[Attempt, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    cost_usd: Decimal | None = None
    cached: bool = False
    """It was asked before: nobody was called, nothing was spent."""


@dataclass(frozen=True, slots=True)
class EmbeddingResponse:
    """Vectors from the pool. See `Served` for the fields they share."""

    vectors: tuple[tuple[float, ...], ...]
    """One for each input, in their order."""
    model: str
    provider: str
    deployment: str
    usage: Usage | None
    latency_seconds: float
    attempts: tuple[Attempt, ...]
    cost_usd: Decimal | None = None

    @property
    def dimension(self) -> int:
        return len(self.vectors[0])


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of an answer as the pool hands it on."""

    delta: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    """On the last chunk only, as the next."""
    response: CompletionResponse | None = None
    """The whole answer, with its attempts and cost."""


Answer = ProviderAnswer | EmbeddingAnswer
Response = CompletionResponse | EmbeddingResponse
