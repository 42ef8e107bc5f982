"""Request ring: a request that no provider could take is refused here, with the field to mend."""

import json
import sys
from collections.abc import Awaitable, Iterator, Sequence

from llm_pool.call import Call, RequestHandler
from llm_pool.types import CompletionRequest, EmbeddingRequest, Request, Response
from shared.errors import InputError
from shared.text import find_fault

WITHOUT_TOOLS = ("auto", "none")
ROLES = ("system", "user", "assistant", "tool")


def refuse_unusable(call: Call, proceed: RequestHandler) -> Awaitable[Response]:
    check_request(call.request)
    return proceed(call)


def check_request(request: CompletionRequest | EmbeddingRequest) -> None:
    """
    Raises:
        InputError: naming the field, what is wrong with it, and what to do.
    """
    check_bound(request)
    if isinstance(request, CompletionRequest):
        _check_completion(request)
    else:
        _check_list("inputs", request.inputs)
        if not request.inputs:
            raise InputError("inputs", "there is none", "send at least one of the inputs")
    _check_texts(request.list_texts())
    _check_texts(_list_names(request))


def check_bound(request: Request) -> None:
    """Apart from the rest for whoever reckons with it before the rest is checked.

    Raises:
        InputError: `timeout_seconds` is no bound.
    """
    if request.timeout_seconds is not None:
        _check_number(
            "timeout_seconds", request.timeout_seconds, sys.float_info.min, sys.float_info.max, "send more than 0"
        )


def _check_texts(texts: Iterator[tuple[str, str]]) -> None:
    for field, text in texts:
        fault = find_fault(text)
        if fault is not None:
            raise InputError(field, f"it {fault.problem}", "remove it")


def _check_completion(request: CompletionRequest) -> None:
    if not request.messages:
        raise InputError("messages", "there is none", "send at least one of the messages")
    for index, message in enumerate(request.messages):
        if message.role not in ROLES:
            raise InputError(f"messages.{index}.role", f"it is {message.role!r}", f"use one of {', '.join(ROLES)}")
        if message.role == "tool" and message.tool_call_id is None:
            raise InputError(f"messages.{index}.tool_call_id", "it is missing", "name the call that is answered")
        for number, call in enumerate(message.tool_calls):
            if call.provider_data is not None and not _is_json(call.provider_data):
                field = f"messages.{index}.tool_calls.{number}.provider_data"
                raise InputError(field, "it is no JSON", "send it as it came with the call, or leave it out")
    _check_list("stop", request.stop)
    _check_numbers(request)
    _check_tools(request)


def _check_numbers(request: CompletionRequest) -> None:
    if request.max_tokens is not None:
        _check_number("max_tokens", request.max_tokens, 1, sys.maxsize, "send 1 or more")
    if request.temperature is not None:
        _check_number("temperature", request.temperature, 0, 2, "send 0 to 2")
    if request.top_p is not None:
        _check_number("top_p", request.top_p, 0, 1, "send 0 to 1")


def _check_number(field: str, value: float, least: float, most: float, remedy: str) -> None:
    try:
        is_fine = least <= value <= most
    except TypeError:
        is_fine = False
    if not is_fine:
        raise InputError(field, f"it is {value!r}", remedy)


def _check_list(field: str, texts: Sequence[str]) -> None:
    """A text is a list of letters too, and never meant to be."""
    if isinstance(texts, str):
        raise InputError(field, "it is one text", "send a list of texts")


def _check_tools(request: CompletionRequest) -> None:
    if not request.tools and request.tool_choice == "auto":
        return
    names = [tool.name for tool in request.tools]
    if len(set(names)) != len(names):
        raise InputError("tools", "two have the same name", "rename one")
    if request.tool_choice in WITHOUT_TOOLS:
        return
    choices = (*WITHOUT_TOOLS, *(("required", *names) if names else ()))
    if request.tool_choice not in choices:
        raise InputError("tool_choice", f"there is no tool '{request.tool_choice}'", f"use one of {', '.join(choices)}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _list_names(request: CompletionRequest | EmbeddingRequest) -> Iterator[tuple[str, str]]:
    """Texts beside those that the model is there to read; most requests have none of them."""
    if request.tenant_id:
        yield "tenant_id", request.tenant_id
    if request.key_id:
        yield "key_id", request.key_id
    if isinstance(request, EmbeddingRequest):
        return
    if request.user:
        yield "user", request.user
    for index, message in enumerate(request.messages):
        if message.name:
            yield f"messages.{index}.name", message.name
        if message.tool_call_id:
            yield f"messages.{index}.tool_call_id", message.tool_call_id
        for number, call in enumerate(message.tool_calls):
            yield f"messages.{index}.tool_calls.{number}", f"{call.id}{call.name}{call.arguments}{call.provider_data}"
    for index, tool in enumerate(request.tools):
        yield f"tools.{index}", f"{tool.name}{tool.description}"
    for index, text in enumerate(request.stop):
        yield f"stop.{index}", text
    for name, text in request.metadata.items():
        yield "metadata", f"{name}{text}"
