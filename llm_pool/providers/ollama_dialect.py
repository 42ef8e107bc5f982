"""How Ollama writes a chat and an embedding: bodies to send, and what comes back, whole and in pieces. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pydantic import BaseModel

from llm_pool.providers.fields import LARGEST_TOKENS
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    FinishReason,
    ProviderAnswer,
    ProviderChunk,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from shared.attempts import Usage
from shared.errors import LLMBrokenAnswerError, LLMOverloadedError

Json = Mapping[str, Any]

DEFAULT_EMBEDDING_MODEL = "nomic-embed-text"
"""Asked for vectors where a deployment is there for chats."""
_CHAT_FIELDS = frozenset({"think", "format", "keep_alive"})


class _Function(BaseModel):
    name: str
    arguments: Json


class _ToolCall(BaseModel):
    function: _Function
    id: str = ""
    """Older servers give none."""


class _Message(BaseModel):
    content: str | None = None
    thinking: str | None = None
    tool_calls: Sequence[_ToolCall] | None = None


class Chat(BaseModel):
    """A whole answer, or one line of a stream."""

    message: _Message | None = None
    model: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: object = None
    eval_count: object = None
    error: str | None = None


class Embedding(BaseModel):
    """The answer to texts."""

    embeddings: Sequence[tuple[float, ...]] = ()
    model: str | None = None
    prompt_eval_count: object = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """A deployment's options, by where they go."""

    fields: Json
    """Beside the messages."""
    model_options: Json
    embedding_model: str | None


def read_settings(options: Mapping[str, object]) -> Settings:
    embedding_model = options.get("embedding_model")
    return Settings(
        {name: value for name, value in options.items() if name in _CHAT_FIELDS},
        {name: value for name, value in options.items() if name not in {*_CHAT_FIELDS, "embedding_model"}},
        None if embedding_model is None else str(embedding_model),
    )


def build_chat(request: CompletionRequest, model: str, settings: Settings, *, is_streamed: bool) -> Json:
    body = {
        "model": model,
        "stream": is_streamed,
        "messages": list(_build_messages(request.messages)),
        "options": _build_model_options(request, settings),
        **settings.fields,
    }
    if request.json_format is not None:
        body["format"] = request.json_format.schema or "json"
    tools = [_build_tool(tool) for tool in request.tools if request.tool_choice in ("auto", "required", tool.name)]
    return {**body, "tools": tools} if tools else body


def build_embedding(request: EmbeddingRequest, model: str, settings: Settings) -> Json:
    body: dict[str, object] = {"model": model, "input": list(request.inputs)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if "keep_alive" in settings.fields:
        body["keep_alive"] = settings.fields["keep_alive"]
    return body


def read_answer(answer: Chat, model: str) -> ProviderAnswer:
    """`model` names the answer where the server does not.

    Raises:
        LLMBrokenAnswerError: an answer without `done` was cut off.
        LLMOverloadedError: it is an error, though its status says otherwise.
    """
    _refuse_error(answer.error)
    if answer.done is not True or answer.message is None or answer.message.content is None:
        raise LLMBrokenAnswerError("the answer has no content or is not done")
    chunk = read_chunk(answer, 0)
    calls = tuple(ToolCall(piece.id or "", piece.name or "", piece.arguments) for piece in chunk.tool_calls)
    finish_reason: FinishReason = "tool_calls" if calls else chunk.finish_reason or "stop"
    return ProviderAnswer(chunk.delta, answer.model or model, finish_reason, chunk.usage, calls)


def read_chunk(part: Chat, called: int) -> ProviderChunk:
    """`called` is how many tool calls came before in this stream.

    Raises:
        LLMBrokenAnswerError: the server only loaded the model.
    """
    if part.done_reason in ("load", "unload"):
        raise LLMBrokenAnswerError("the server only loaded the model")
    message = part.message or _Message()
    calls = tuple(_read_call(called + n, call) for n, call in enumerate(message.tool_calls or ()))
    # Ollama says `stop` for tool calls too, and older servers say nothing beyond `done`.
    stopped: FinishReason = "tool_calls" if called + len(calls) else "stop"
    finish_reason: FinishReason = "length" if part.done_reason == "length" else stopped
    usage = _sum_up(part.prompt_eval_count, part.eval_count)
    return ProviderChunk(
        message.content or "",
        calls,
        finish_reason if part.done else None,
        usage,
        part.model,
        is_thinking=bool(message.thinking),
    )


def read_vectors(answer: Embedding, model: str, wanted: int) -> EmbeddingAnswer:
    """
    Raises:
        LLMBrokenAnswerError: it is not one vector for each input, all of one length.
        LLMOverloadedError: it is an error, though its status says otherwise.
    """
    _refuse_error(answer.error)
    vectors = tuple(answer.embeddings)
    if len(vectors) != wanted or len({len(vector) for vector in vectors}) != 1 or not vectors[0]:
        raise LLMBrokenAnswerError(f"the answer has {len(vectors)} vectors for {wanted} inputs, or uneven ones")
    return EmbeddingAnswer(vectors, answer.model or model, _sum_up(answer.prompt_eval_count, 0))


def _sum_up(prompt: object, completion: object) -> Usage | None:
    """None for what is no count: an answer that was paid for is not thrown away for it."""
    counts = [count for count in (prompt, completion) if isinstance(count, int) and 0 <= count <= LARGEST_TOKENS]
    return Usage(*counts) if len(counts) == 2 else None


def _refuse_error(error: str | None) -> None:
    if error is not None:
        raise LLMOverloadedError(f"the server failed: {error[:500]}")


def _build_messages(messages: Sequence[ChatMessage]) -> Iterator[Json]:
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    for message in messages:
        entry: dict[str, object] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            entry["tool_calls"] = [_build_call(call) for call in message.tool_calls]
        if message.role == "tool":
            # Ollama tells answers apart by the function's name, which other dialects do not repeat.
            entry["tool_name"] = message.name or names.get(message.tool_call_id or "", "")
            entry["tool_call_id"] = message.tool_call_id or ""
        yield entry


def _build_call(call: ToolCall) -> Json:
    return {"id": call.id, "function": {"name": call.name, "arguments": _parse_arguments(call.arguments)}}


def _parse_arguments(arguments: str) -> object:
    """Ollama takes an object only; what a model wrote amiss is told it as it was."""
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return {"arguments": arguments}
    return parsed if isinstance(parsed, dict) else {"arguments": parsed}


def _build_tool(tool: Tool) -> Json:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _read_call(index: int, call: _ToolCall) -> ToolCallDelta:
    # An id of ours where there is none: a conversation may go on at a provider that wants them.
    return ToolCallDelta(
        index, call.id or f"call_{uuid4().hex}", call.function.name, json.dumps(call.function.arguments)
    )


def _build_model_options(request: CompletionRequest, settings: Settings) -> Json:
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "num_predict": request.max_tokens,
        "stop": list(request.stop) or None,
    }
    return {**settings.model_options, **{name: value for name, value in given.items() if value is not None}}
