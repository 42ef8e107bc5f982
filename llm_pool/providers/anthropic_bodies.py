"""Writes our requests in Anthropic's dialect. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence

from llm_pool.catalog import Deployment
from llm_pool.providers.schemas import close
from llm_pool.types import ChatMessage, CompletionRequest, JsonFormat, Tool, ToolCall

Body = dict[str, object]

DEFAULT_MAX_TOKENS = 4096
"""The API wants a bound with every request."""
HIGHEST_TEMPERATURE = 1.0
"""Others go to 2; the API refuses what is higher."""

_NOT_COUNTED = ("max_tokens", "temperature", "top_p", "stop_sequences", "metadata")
_CHOICES: Mapping[str, Body] = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}


def build_message_body(request: CompletionRequest, deployment: Deployment) -> Body:
    """The deployment's options stand first: what the request says wins."""
    system = [message.content for message in request.messages if message.role == "system"]
    body: Body = {
        "max_tokens": DEFAULT_MAX_TOKENS,
        **deployment.options,
        "model": deployment.model,
        "messages": list(_build_turns(request.messages)),
    }
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    if request.tools:
        body["tools"] = [_build_tool(tool) for tool in request.tools]
        body["tool_choice"] = _CHOICES.get(request.tool_choice) or {"type": "tool", "name": request.tool_choice}
    if request.json_format is not None:
        _ask_for_json(body, system, request.json_format)
    if system:
        body["system"] = "\n\n".join(system)
    return body | _build_sampling(request)


def build_count_body(request: CompletionRequest, deployment: Deployment) -> Body:
    """Only what shapes the prompt: the API refuses the rest."""
    body = build_message_body(request, deployment)
    return {key: value for key, value in body.items() if key not in _NOT_COUNTED}


def _build_sampling(request: CompletionRequest) -> Body:
    """One of both at most: current models refuse the two together."""
    if request.temperature is not None:
        return {"temperature": min(request.temperature, HIGHEST_TEMPERATURE)}
    return {} if request.top_p is None else {"top_p": request.top_p}


def _build_turns(messages: Sequence[ChatMessage]) -> Iterator[Body]:
    """Answers of tools are blocks of the user's turn, all that follow one another in one."""
    results: list[Body] = []
    for message in messages:
        if message.role == "tool":
            results.append(_build_result(message))
            continue
        if results:
            yield {"role": "user", "content": results}
            results = []
        if message.role != "system":
            yield {"role": message.role, "content": _build_content(message)}
    if results:
        yield {"role": "user", "content": results}


def _build_content(message: ChatMessage) -> str | list[Body]:
    if not message.tool_calls:
        return message.content
    text: list[Body] = (
        [{"type": "text", "text": message.content}] if message.content else []
    )  # empty blocks are refused
    return text + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _parse_arguments(call)}
        for call in message.tool_calls
    ]


def _build_result(message: ChatMessage) -> Body:
    return {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}


def _parse_arguments(call: ToolCall) -> Body:
    """The API wants an object; what the model wrote instead is shown to it as it was."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": call.arguments}


def _build_tool(tool: Tool) -> Body:
    written: Body = {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
    if tool.strict:
        written["strict"] = True
    return written


def _ask_for_json(body: Body, system: list[str], wanted: JsonFormat) -> None:
    """By the field for it where the shape can be enforced, else in words."""
    closed = None if wanted.schema is None else close(wanted.schema)
    if closed is not None:
        config = body.get("output_config")
        others = config if isinstance(config, dict) else {}
        body["output_config"] = {**others, "format": {"type": "json_schema", "schema": closed}}
    elif wanted.schema is None:
        system.append("Answer with one JSON object and nothing else.")
    else:
        shape = json.dumps(wanted.schema)
        system.append(f"Answer with JSON that fits this JSON schema, and nothing else:\n{shape}")
