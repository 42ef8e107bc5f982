"""A model that calls functions: each is run here and the model told, until it answers in words."""

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import Any

import structlog

from llm_pool.asking.json_answers import Completes, add_costs
from llm_pool.call import RunConfig
from llm_pool.json_text import parse_json
from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse, Tool, ToolCall
from shared.errors import InputError, LLMError

log = structlog.get_logger()


class ToolRefusedError(Exception):
    """Raised by a function to have its text told to the model, which may then try otherwise."""


@dataclass(frozen=True, slots=True)
class ToolFunction:
    """A function the model may call, and what it is told of it."""

    tool: Tool
    run: Callable[..., Any]
    """Gets the arguments by name. `async`, or blocking: then it runs in a thread. What is no text is told as JSON."""


@dataclass(frozen=True, slots=True)
class ToolsAnswer:
    """What the model said in the end, and how it came there."""

    response: CompletionResponse
    """The last answer, with the attempts and the cost of all rounds."""
    messages: tuple[ChatMessage, ...]
    """The whole conversation: what was asked, each call and its result, the answer."""


async def ask_with_tools(
    pool: Completes,
    request: CompletionRequest,
    functions: Sequence[ToolFunction],
    choice: str,
    max_rounds: int,
    config: RunConfig,
) -> ToolsAnswer:
    """See `Asking.call_tools`."""
    by_name = _index(functions)
    request = replace(request, tools=tuple(function.tool for function in functions), tool_choice=choice)
    response = await pool.complete(request, config)
    for round_number in range(1, max_rounds + 1):
        if not response.tool_calls:
            break
        results = await asyncio.gather(*(_run(by_name, call) for call in response.tool_calls))
        said = ChatMessage("assistant", response.content, tool_calls=response.tool_calls)
        # A forced choice would have it call for ever.
        next_choice = "none" if round_number == max_rounds else "auto"
        request = replace(request, messages=(*request.messages, said, *results), tool_choice=next_choice)
        response = await _continue(pool, request, response, config)
    return ToolsAnswer(response, (*request.messages, ChatMessage("assistant", response.content)))


async def _continue(
    pool: Completes, request: CompletionRequest, before: CompletionResponse, config: RunConfig
) -> CompletionResponse:
    try:
        response = await pool.complete(request, config)
    except LLMError as error:
        error.attempts = (*before.attempts, *error.attempts)
        raise
    return replace(
        response,
        attempts=(*before.attempts, *response.attempts),
        cost_usd=add_costs(before.cost_usd, response.cost_usd),
    )


def _index(functions: Sequence[ToolFunction]) -> Mapping[str, ToolFunction]:
    by_name = {function.tool.name: function for function in functions}
    if len(by_name) != len(functions):
        raise InputError("tools", "two have the same name", "rename one")
    return by_name


async def _run(functions: Mapping[str, ToolFunction], call: ToolCall) -> ChatMessage:
    try:
        content = await _call(functions, call)
    except ToolRefusedError as refusal:
        log.info("tool_call_refused", tool=call.name, call_id=call.id)
        content = f"Error: {refusal}"
    return ChatMessage("tool", content, tool_call_id=call.id)


async def _call(functions: Mapping[str, ToolFunction], call: ToolCall) -> str:
    function = functions.get(call.name)
    if function is None:
        raise ToolRefusedError(f"there is no function {call.name}; use one of {', '.join(functions)}")
    arguments = _read_arguments(function.tool, call.arguments)
    if inspect.iscoroutinefunction(function.run):
        result = await function.run(**arguments)
    else:
        result = await asyncio.to_thread(function.run, **arguments)
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _read_arguments(tool: Tool, text: str) -> Mapping[str, Any]:
    try:
        arguments = parse_json(text or "{}")
    except ValueError as error:
        raise ToolRefusedError(f"the arguments are no JSON ({error})") from error
    fault = resolve_name("llm_pool.json_schema:build_check")(tool.parameters, f"tools.{tool.name}")(arguments)
    if fault is not None:
        raise ToolRefusedError(f"the arguments do not fit: {fault}")
    if not isinstance(arguments, dict):
        raise ToolRefusedError("the arguments are no JSON object")
    return arguments
