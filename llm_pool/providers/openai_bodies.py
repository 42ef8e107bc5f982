"""Writes our requests in OpenAI's dialect. Pure."""

import json
from collections.abc import Callable, Mapping

from llm_pool.catalog import Deployment
from llm_pool.providers.presets import JsonStyle, Preset
from llm_pool.providers.schemas import is_closed
from llm_pool.types import ChatMessage, CompletionRequest, EmbeddingRequest, JsonFormat, Tool, ToolCall

Body = dict[str, object]


def build_chat_body(request: CompletionRequest, deployment: Deployment, preset: Preset) -> Body:
    """The deployment's options stand first: what the request says wins."""
    body: Body = {
        **deployment.options,
        "model": deployment.model,
        "messages": [_build_message(message, preset) for message in request.messages],
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body[preset.max_tokens_field] = request.max_tokens
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.user is not None and preset.takes_user:
        body["user"] = request.user
    if request.tools:
        body |= _build_tools(request, preset)
    if request.json_format is not None:
        body |= _FORMATS[preset.json_style](request.json_format, preset.marks_strict)
    return body


def build_stream_body(request: CompletionRequest, deployment: Deployment, preset: Preset) -> Body:
    body = build_chat_body(request, deployment, preset)
    body["stream"] = True
    if preset.asks_for_usage:
        body["stream_options"] = {"include_usage": True}
    return body


def build_embedding_body(request: EmbeddingRequest, deployment: Deployment, preset: Preset) -> Body:
    body: Body = {**deployment.options, "model": deployment.model, "input": list(request.inputs)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if preset.embeds_base64:
        body["encoding_format"] = "base64"
    return body


def _build_message(message: ChatMessage, preset: Preset) -> Body:
    written: Body = {"role": message.role, "content": message.content}
    if message.name is not None and preset.takes_names:
        written["name"] = message.name
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        written["content"] = message.content or None
        written["tool_calls"] = [_build_call(call, preset) for call in message.tool_calls]
    return written


def _build_call(call: ToolCall, preset: Preset) -> Body:
    written: Body = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    if call.provider_data is not None and preset.takes_extra_content:
        written["extra_content"] = json.loads(call.provider_data)
    return written


def _build_tools(request: CompletionRequest, preset: Preset) -> Body:
    choice = request.tool_choice
    if choice in ("auto", "none", "required"):
        return {"tools": _build_tool_list(request.tools, preset), "tool_choice": choice}
    if preset.names_tool:
        named = {"type": "function", "function": {"name": choice}}
        return {"tools": _build_tool_list(request.tools, preset), "tool_choice": named}
    only = tuple(tool for tool in request.tools if tool.name == choice)
    return {"tools": _build_tool_list(only, preset), "tool_choice": "required"}


def _build_tool_list(tools: tuple[Tool, ...], preset: Preset) -> list[Body]:
    return [{"type": "function", "function": _build_function(tool, preset.marks_strict)} for tool in tools]


def _build_function(tool: Tool, marks_strict: bool) -> Body:
    function: Body = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    if tool.strict and marks_strict:
        function["strict"] = True
    return function


def _build_json_schema(wanted: JsonFormat, marks_strict: bool) -> Body:
    """`strict` is refused with HTTP 400 where the schema leaves anything open."""
    if wanted.schema is None:
        return {"response_format": {"type": "json_object"}}
    shape: Body = {"name": wanted.name, "schema": wanted.schema}
    if marks_strict and is_closed(wanted.schema):
        shape["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": shape}}


def _build_json_schema_only(wanted: JsonFormat, _: bool) -> Body:
    shape = {"name": wanted.name, "schema": wanted.schema or {"type": "object"}}
    return {"response_format": {"type": "json_schema", "json_schema": shape}}


def _build_json_object(wanted: JsonFormat, _: bool) -> Body:
    schema = {} if wanted.schema is None else {"schema": wanted.schema}
    return {"response_format": {"type": "json_object", **schema}}


def _build_nothing(_: JsonFormat, __: bool) -> Body:
    return {}


_FORMATS: Mapping[JsonStyle, Callable[[JsonFormat, bool], Body]] = {
    "json_schema": _build_json_schema,
    "json_schema_only": _build_json_schema_only,
    "json_object_with_schema": _build_json_object,
    "none": _build_nothing,
}
