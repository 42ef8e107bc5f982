"""The short forms of asking a pool: a chat of one turn, JSON of a given shape, a model that calls functions.

They stand over `complete` alone, so that a pool in this process and one behind HTTP have the same.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol, TypedDict, Unpack, cast

from llm_pool.asking.json_answers import JsonAnswer, ask_json
from llm_pool.asking.tool_rounds import ToolFunction, ToolsAnswer, ask_with_tools
from llm_pool.call import DEFAULT_RUN, CompletionPool, RunConfig
from llm_pool.pool_status import PoolStatus
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Role,
    StreamChunk,
)
from shared.errors import InputError

DEFAULT_GROUP: Final = "quality"
"""Asked where no model group is named, as by an agent."""
HEALTH_SECONDS: Final = 5.0
"""How long a deployment may take to say that it is there."""


TURN_KEYS: Final = ("role", "content", "name", "tool_call_id")

Prompt = str | Sequence[ChatMessage | Mapping[str, str]]
"""What a user says, or a conversation; a turn may be a mapping, as other clients have it."""


class ChatOptions(TypedDict, total=False):
    """What of a request has a name of its own; see `CompletionRequest`."""

    temperature: float | None
    max_tokens: int | None
    top_p: float | None
    stop: tuple[str, ...]
    tenant_id: str | None
    key_id: str | None
    timeout_seconds: float | None
    user: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How long a prompt is."""

    tokens: int
    is_exact: bool
    """The provider counted it; else it is our estimate."""


class AskablePool(CompletionPool, Protocol):
    """A pool that also tells about itself."""

    async def count_tokens(self, request: CompletionRequest) -> TokenCount:
        """Of the prompt, tools included.

        Raises:
            NotFoundError: no such model group.
        """

    async def health(self, timeout_seconds: float = HEALTH_SECONDS) -> Mapping[str, bool]:
        """Whether each deployment answers, by its name; never raises."""

    async def get_status(self) -> PoolStatus:
        """What is known of quotas, and who answered last."""


class Asking(ABC):
    """What `Pool` and `RemotePool` have in common."""

    @abstractmethod
    async def complete(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> CompletionResponse:
        """See `CompletionPool`; so below."""

    @abstractmethod
    def stream(self, request: CompletionRequest, config: RunConfig = DEFAULT_RUN) -> AsyncIterator[StreamChunk]: ...

    @abstractmethod
    async def embed(self, request: EmbeddingRequest, config: RunConfig = DEFAULT_RUN) -> EmbeddingResponse: ...

    @abstractmethod
    def runs_foreign_code(self, model: str) -> bool: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    @abstractmethod
    async def count_tokens(self, request: CompletionRequest) -> TokenCount: ...

    @abstractmethod
    async def health(self, timeout_seconds: float = HEALTH_SECONDS) -> Mapping[str, bool]: ...

    async def get_status(self) -> PoolStatus:
        """Nothing, where nothing is kept."""
        return PoolStatus()

    async def chat(
        self,
        prompt: str,
        system: str | None = None,
        *,
        model: str = DEFAULT_GROUP,
        config: RunConfig = DEFAULT_RUN,
        **options: Unpack[ChatOptions],
    ) -> CompletionResponse:
        """One turn. Raises what `complete` raises; so below."""
        return await self.complete(CompletionRequest(model, build_turn(prompt, system), **options), config)

    async def json(
        self,
        prompt: Prompt,
        schema: Mapping[str, object] | None = None,
        *,
        model: str = DEFAULT_GROUP,
        config: RunConfig = DEFAULT_RUN,
        **options: Unpack[ChatOptions],
    ) -> JsonAnswer:
        """A value that fits the JSON schema; without one, any object. A wrong answer is shown to the model once.

        Raises:
            LLMSchemaMismatchError: neither answer fits.
            InputError: the schema is none.
        """
        return await ask_json(self, CompletionRequest(model, as_messages(prompt), **options), schema, config)

    async def call_tools(
        self,
        prompt: Prompt,
        tools: Sequence[ToolFunction],
        *,
        choice: str = "auto",
        max_rounds: int = 8,
        model: str = DEFAULT_GROUP,
        config: RunConfig = DEFAULT_RUN,
        **options: Unpack[ChatOptions],
    ) -> ToolsAnswer:
        """Let the model call functions until it answers in words; after `max_rounds` it has to.

        `choice` holds for the first round: `auto`, `none`, `required`, or a function's name. What a function raises
        is raised here, but for `ToolRefusedError`, which the model is told.
        """
        request = CompletionRequest(model, as_messages(prompt), **options)
        return await ask_with_tools(self, request, tools, choice, max_rounds, config)


def closing(chunks: AsyncIterator[StreamChunk]) -> "aclosing[AsyncGenerator[StreamChunk, None]]":
    """Streams of a pool are generators: left before their end, they have to be closed."""
    return aclosing(cast("AsyncGenerator[StreamChunk, None]", chunks))


def build_turn(prompt: str, system: str | None = None) -> tuple[ChatMessage, ...]:
    said = ChatMessage("user", prompt)
    return (said,) if system is None else (ChatMessage("system", system), said)


def as_messages(prompt: Prompt) -> tuple[ChatMessage, ...]:
    """
    Raises:
        InputError: a turn that was written as a mapping is none.
    """
    if isinstance(prompt, str):
        return build_turn(prompt)
    return tuple(
        turn if isinstance(turn, ChatMessage) else _read_turn(index, turn) for index, turn in enumerate(prompt)
    )


def _read_turn(index: int, turn: Mapping[str, str]) -> ChatMessage:
    remedy = f"use the keys {', '.join(TURN_KEYS)}, or write a ChatMessage"
    if not isinstance(turn, Mapping) or "role" not in turn:
        raise InputError(f"messages.{index}", "it says no role", remedy)
    for key in turn:
        if key not in TURN_KEYS:
            raise InputError(f"messages.{index}.{key}", "it is not understood", remedy)
    name, answered = turn.get("name"), turn.get("tool_call_id")
    return ChatMessage(cast(Role, turn["role"]), turn.get("content", ""), name, tool_call_id=answered)
