"""Anthropic's messages as they come in, made into requests. Pure.

`model` names a model group. What cannot be honoured is refused rather than left out in silence; what only tunes
effort, speed, caching or billing at Anthropic is ignored.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llm_pool.dialects.bodies import Caller, Content, read_body, read_document, read_provider_data, refuse_unknown
from llm_pool.remote.wire_bodies import Text
from llm_pool.types import ChatMessage, CompletionRequest, JsonFormat, Tool, ToolCall

REMEDY: Final = "send {model, max_tokens, messages: [{role, content}]} as Anthropic's messages take it"

ASKS_FOR_NOTHING: Mapping[str, Sequence[object]] = {
    "container": (),
    "context_management": (),
    "mcp_servers": ([],),
    "prefill": (),
    "top_k": (),
}
"""Fields with no equivalent here, and their values that need none."""
IGNORED: Final = (
    "cache_control",
    "diagnostics",
    "inference_geo",
    "service_tier",
    "speed",
    "thinking",
    "user_profile_id",
    "workspace_id",
)

_LENIENT = ConfigDict(frozen=True, extra="ignore")
_STRICT = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class _TextBlock(BaseModel):
    model_config = _LENIENT

    type: Literal["text"]
    text: Text


class _ToolUseBlock(BaseModel):
    model_config = _LENIENT

    type: Literal["tool_use"]
    id: Text
    name: Text
    input: dict[str, object]
    extra_content: object = None

    def read(self) -> ToolCall:
        arguments = json.dumps(self.input, ensure_ascii=False)
        return ToolCall(self.id, self.name, arguments, read_provider_data(self.extra_content))


class _ToolResultBlock(BaseModel):
    model_config = _LENIENT

    type: Literal["tool_result"]
    tool_use_id: Text
    content: Content = ""
    is_error: bool | None = None

    def read(self) -> ChatMessage:
        """Only Anthropic marks a failed call; others are told in words."""
        content = f"Error: {self.content}" if self.is_error else self.content
        return ChatMessage("tool", content, tool_call_id=self.tool_use_id)


class _ThoughtBlock(BaseModel):
    """Of an earlier answer; nobody but the model that had it can read it."""

    model_config = _LENIENT

    type: Literal["thinking", "redacted_thinking"]


def _wrap_text(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_Block = Annotated[_TextBlock | _ToolUseBlock | _ToolResultBlock | _ThoughtBlock, Field(discriminator="type")]
_Blocks = Annotated[tuple[_Block, ...], BeforeValidator(_wrap_text)]


class _Message(BaseModel):
    model_config = _LENIENT

    role: Literal["user", "assistant", "system"]
    content: _Blocks

    def read(self) -> Iterator[ChatMessage]:
        """Results of tools are turns of their own, and come before what is said to them."""
        results = [block for block in self.content if isinstance(block, _ToolResultBlock)]
        calls = tuple(block.read() for block in self.content if isinstance(block, _ToolUseBlock))
        texts = [block.text for block in self.content if isinstance(block, _TextBlock)]
        yield from (block.read() for block in results)
        if texts or calls or not results:
            yield ChatMessage(self.role, "".join(texts), tool_calls=calls)


class _Tool(BaseModel):
    """Tools that run at Anthropic have another type, and are not to be had elsewhere."""

    model_config = _LENIENT

    type: Literal["custom"] | None = None
    name: Text
    description: Text | None = None
    input_schema: dict[str, object]
    strict: bool | None = None

    def read(self) -> Tool:
        return Tool(self.name, self.description or "", self.input_schema, bool(self.strict))


class _ToolChoice(BaseModel):
    model_config = _LENIENT

    type: Literal["auto", "any", "none", "tool"]
    name: Text | None = None
    disable_parallel_tool_use: Literal[False] | None = None

    def read(self) -> str:
        return {"any": "required", "tool": self.name or "required"}.get(self.type, self.type)


class _Metadata(BaseModel):
    model_config = _LENIENT

    user_id: Text | None = None


class _Format(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    type: Literal["json_schema"]
    json_schema: dict[str, object] = Field(alias="schema")


class _OutputConfig(BaseModel):
    """The effort stands here too; it is a deployment's own affair."""

    model_config = _LENIENT

    format: _Format | None = None


class CountBody(BaseModel):
    """What `POST /v1/messages/count_tokens` takes."""

    model_config = _STRICT

    model: Text
    messages: tuple[_Message, ...]
    system: Content = ""
    tools: tuple[_Tool, ...] | None = None
    tool_choice: _ToolChoice | None = None
    output_config: _OutputConfig | None = None

    def to_request(self, caller: Caller) -> CompletionRequest:
        wanted = self.output_config and self.output_config.format
        return CompletionRequest(
            model=self.model,
            messages=tuple(self._read_messages()),
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            tools=tuple(tool.read() for tool in self.tools or ()),
            tool_choice=self.tool_choice.read() if self.tool_choice else "auto",
            json_format=JsonFormat(wanted.json_schema) if wanted else None,
            **self._read_bounds(),
        )

    def _read_messages(self) -> Iterator[ChatMessage]:
        if self.system:
            yield ChatMessage("system", self.system)
        for message in self.messages:
            yield from message.read()

    def _read_bounds(self) -> dict[str, Any]:
        return {}


class MessagesBody(CountBody):
    """What `POST /v1/messages` takes."""

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop_sequences: tuple[Text, ...] | None = None
    stream: bool = False
    metadata: _Metadata | None = None

    def _read_bounds(self) -> dict[str, Any]:
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": self.stop_sequences or (),
            "user": self.metadata and self.metadata.user_id,
        }


def read_messages(body: bytes) -> MessagesBody:
    """
    Raises:
        InputError: naming the field, in Anthropic's own words for it.
    """
    return read_body(MessagesBody, _prepare(body), REMEDY)


def read_count(body: bytes) -> CountBody:
    """Raises likewise."""
    return read_body(CountBody, _prepare(body), REMEDY)


def _prepare(body: bytes) -> dict[str, Any]:
    document = read_document(body, REMEDY)
    refuse_unknown(document, ASKS_FOR_NOTHING)
    return {name: value for name, value in document.items() if name not in (*ASKS_FOR_NOTHING, *IGNORED)}
