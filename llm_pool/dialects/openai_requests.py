"""OpenAI's chat completions and embeddings as they come in, made into requests. Pure.

`model` names a model group. What cannot be honoured is refused rather than left out in silence; what only tunes speed,
storage or billing at OpenAI is ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from llm_pool.dialects.bodies import (
    Caller,
    Content,
    TextOrTexts,
    read_body,
    read_document,
    read_provider_data,
    refuse_unknown,
)
from llm_pool.remote.wire_bodies import Text
from llm_pool.types import ChatMessage, CompletionRequest, EmbeddingRequest, JsonFormat, Role, Tool, ToolCall

CHAT_REMEDY: Final = "send {model, messages: [{role, content}]} as OpenAI's chat completions take it"
EMBEDDING_REMEDY: Final = "send {model, input} as OpenAI's embeddings take it, with texts as input"

ASKS_FOR_NOTHING: Mapping[str, Sequence[object]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""Fields with no equivalent here, and their values that need none."""
IGNORED: Final = (
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "verbosity",
)

_STRICT = ConfigDict(frozen=True, extra="forbid")
_LENIENT = ConfigDict(frozen=True, extra="ignore")
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class _Function(BaseModel):
    model_config = _LENIENT

    name: Text
    arguments: Text


class _ToolCall(BaseModel):
    model_config = _LENIENT

    id: Text
    type: Literal["function"] = "function"
    function: _Function
    extra_content: object = None

    def read(self) -> ToolCall:
        return ToolCall(self.id, self.function.name, self.function.arguments, read_provider_data(self.extra_content))


class _Message(BaseModel):
    """Lenient: what a client was answered with comes back as a message, with fields that are empty."""

    model_config = _LENIENT

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = ""
    name: Text | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None
    tool_call_id: Text | None = None
    function_call: None = None
    audio: None = None

    def read(self) -> ChatMessage:
        calls = tuple(call.read() for call in self.tool_calls or ())
        return ChatMessage(_ROLES[self.role], self.content, self.name, calls, self.tool_call_id)


class _FunctionTool(BaseModel):
    model_config = _LENIENT

    name: Text
    description: Text | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class _Tool(BaseModel):
    model_config = _LENIENT

    type: Literal["function"]
    function: _FunctionTool

    def read(self) -> Tool:
        function = self.function
        parameters = function.parameters or {"type": "object", "properties": {}}
        return Tool(function.name, function.description or "", parameters, bool(function.strict))


class _ToolChoice(BaseModel):
    model_config = _LENIENT

    class _Named(BaseModel):
        name: Text

    type: Literal["function"]
    function: _Named


class _JsonSchema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    name: Text = "answer"
    json_schema: dict[str, object] | None = Field(default=None, alias="schema")


class _ResponseFormat(BaseModel):
    model_config = _LENIENT

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None

    def read(self) -> JsonFormat | None:
        if self.type == "text":
            return None
        wanted = self.json_schema or _JsonSchema()
        return JsonFormat(wanted.json_schema, wanted.name)


class _StreamOptions(BaseModel):
    model_config = _LENIENT

    include_usage: bool = False


class ChatBody(BaseModel):
    """What `POST /v1/chat/completions` takes."""

    model_config = _STRICT

    model: Text
    messages: tuple[_Message, ...]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: TextOrTexts = ()
    tools: tuple[_Tool, ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    response_format: _ResponseFormat | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: Text | None = None
    metadata: dict[Text, Text] | None = None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def to_request(self, caller: Caller) -> CompletionRequest:
        return CompletionRequest(
            model=self.model,
            messages=tuple(message.read() for message in self.messages),
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            temperature=self.temperature,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            top_p=self.top_p,
            stop=self.stop,
            tools=tuple(tool.read() for tool in self.tools or ()),
            tool_choice=_read_choice(self.tool_choice),
            json_format=self.response_format.read() if self.response_format else None,
            user=self.user,
            metadata=self.metadata or {},
        )


class EmbeddingBody(BaseModel):
    """What `POST /v1/embeddings` takes."""

    model_config = _STRICT

    model: Text
    input: TextOrTexts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: Text | None = None

    def to_request(self, caller: Caller) -> EmbeddingRequest:
        return EmbeddingRequest(
            model=self.model,
            inputs=self.input,
            dimensions=self.dimensions,
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
        )


def read_chat(body: bytes) -> ChatBody:
    """
    Raises:
        InputError: naming the field, in OpenAI's own words for it.
    """
    document = read_document(body, CHAT_REMEDY)
    refuse_unknown(document, ASKS_FOR_NOTHING)
    return read_body(ChatBody, _drop(document, (*ASKS_FOR_NOTHING, *IGNORED)), CHAT_REMEDY)


def read_embeddings(body: bytes) -> EmbeddingBody:
    """
    Raises:
        InputError: likewise; tokens instead of texts cannot be read, as they mean something at one model only.
    """
    return read_body(EmbeddingBody, read_document(body, EMBEDDING_REMEDY), EMBEDDING_REMEDY)


def _drop(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _read_choice(choice: str | _ToolChoice | None) -> str:
    return choice.function.name if isinstance(choice, _ToolChoice) else choice or "auto"
