"""What is refused before anybody is asked, and by which field."""

import time
from dataclasses import replace
from typing import cast

import pytest

from llm_pool.middleware.validation import check_request
from llm_pool.types import ChatMessage, CompletionRequest, EmbeddingRequest, Role, Tool, ToolCall
from shared.errors import InputError

USER = ChatMessage("user", "hello")
FINE = CompletionRequest(
    "fast",
    (
        USER,
        ChatMessage("assistant", "", tool_calls=(ToolCall("1", "look_up", "{}", '{"signed": 1}'),)),
        ChatMessage("tool", "rain", tool_call_id="1"),
    ),
    temperature=2.0,
    max_tokens=1,
    top_p=1.0,
    stop=("END",),
    tools=(Tool("look_up", "a dictionary", {}),),
    tool_choice="look_up",
    user="u-1",
    metadata={"purpose": "a test"},
    tenant_id="acme",
    key_id="key-1",
)
NUL = "a\x00b"
HALF = "half \ud83d"


def test_what_is_fine_passes() -> None:
    check_request(FINE)
    check_request(EmbeddingRequest("embedding", ("one", "")))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("messages", {"messages": ()}),
        ("messages.0.content", {"messages": (ChatMessage("user", NUL),)}),
        ("messages.0.name", {"messages": (ChatMessage("user", "x", name=NUL),)}),
        ("messages.1.tool_call_id", {"messages": (USER, ChatMessage("tool", "rain"))}),
        ("messages.0.tool_calls.0", {"messages": (ChatMessage("assistant", tool_calls=(ToolCall("1", "f", HALF),)),)}),
        (
            "messages.0.tool_calls.0.provider_data",
            {"messages": (ChatMessage("assistant", tool_calls=(ToolCall("1", "f", "{}", "signed"),)),)},
        ),
        ("messages.0.role", {"messages": (ChatMessage(cast(Role, "usr"), "hello"),)}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": "many"}),
        ("temperature", {"temperature": "hot"}),
        ("timeout_seconds", {"timeout_seconds": 0}),
        ("timeout_seconds", {"timeout_seconds": float("nan")}),
        ("timeout_seconds", {"timeout_seconds": float("inf")}),
        ("stop", {"stop": "END"}),
        ("temperature", {"temperature": 2.5}),
        ("temperature", {"temperature": float("nan")}),
        ("top_p", {"top_p": -0.5}),
        ("tools", {"tools": (Tool("look_up", "", {}), Tool("look_up", "", {}))}),
        ("tools.0", {"tools": (Tool("look_up", HALF, {}),)}),
        ("tool_choice", {"tool_choice": "get_weather"}),
        ("tool_choice", {"tool_choice": "required", "tools": ()}),
        ("stop.0", {"stop": (NUL,)}),
        ("user", {"user": HALF}),
        ("metadata", {"metadata": {NUL: "x"}}),
        ("tenant_id", {"tenant_id": NUL}),
        ("key_id", {"key_id": NUL}),
    ],
)
def test_the_field_to_mend_is_named(field: str, changes: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        check_request(replace(FINE, **changes))
    assert caught.value.field == field
    assert caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize(("field", "inputs"), [("inputs", ()), ("inputs", "one text"), ("inputs.1", ("one", NUL))])
def test_of_vectors_too(field: str, inputs: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        check_request(EmbeddingRequest("embedding", inputs))
    assert caught.value.field == field


def test_what_is_no_message_is_refused_where_the_request_is_made() -> None:
    with pytest.raises(InputError, match=r"^messages.1: it is no ChatMessage; write ChatMessage\('user', 'a text'\)$"):
        CompletionRequest("fast", (USER, cast(ChatMessage, {"role": "user", "content": "hello"})))


def test_it_costs_microseconds() -> None:
    request = CompletionRequest("fast", tuple(ChatMessage("user", "hello there") for _ in range(4)))
    started = time.process_time()
    for _ in range(1000):
        check_request(request)
    assert time.process_time() - started < 0.1
