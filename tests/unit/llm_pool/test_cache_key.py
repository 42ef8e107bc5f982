"""Two requests share an answer exactly when everything that shapes it is the same."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_pool.cache_key import build_cache_key, build_fingerprints
from llm_pool.catalog import Deployment, Limits, ModelGroup, Price
from llm_pool.types import ChatMessage, CompletionRequest, JsonFormat, Purse, Tool, ToolCall
from tests.fakes.scripted_provider import build_catalog, deploy

texts = st.text(max_size=8)
maybe_texts = st.none() | texts
schemas = st.dictionaries(texts, st.integers() | texts | st.lists(texts, max_size=2), max_size=3)
messages = st.builds(
    ChatMessage,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=texts,
    name=maybe_texts,
    tool_calls=st.lists(st.builds(ToolCall, texts, texts, texts, maybe_texts), max_size=2).map(tuple),
    tool_call_id=maybe_texts,
)
SHAPING: Mapping[str, st.SearchStrategy[Any]] = {
    "tenant_id": maybe_texts,
    "messages": st.lists(messages, max_size=3).map(tuple),
    "temperature": st.none() | st.floats(0, 2),
    "max_tokens": st.none() | st.integers(1, 9000),
    "top_p": st.none() | st.floats(0, 1),
    "stop": st.lists(texts, max_size=2).map(tuple),
    "tools": st.lists(st.builds(Tool, texts, texts, schemas, st.booleans()), max_size=2).map(tuple),
    "tool_choice": texts,
    "json_format": st.none() | st.builds(JsonFormat, st.none() | schemas, texts),
}
OTHER: Mapping[str, st.SearchStrategy[Any]] = {
    "key_id": maybe_texts,
    "user": maybe_texts,
    "timeout_seconds": st.none() | st.floats(1, 9),
    "metadata": st.dictionaries(texts, texts, max_size=2),
    "purse": st.none() | st.builds(Purse, texts, st.decimals(1, 9)),
}
requests = st.builds(CompletionRequest, model=st.just("fast"), **SHAPING, **OTHER)


def key(request: CompletionRequest) -> str:
    return build_cache_key(request, "fingerprint")


def test_each_field_of_a_request_is_said_to_shape_the_answer_or_not() -> None:
    # The model is in the fingerprint.
    assert {field.name for field in fields(CompletionRequest)} == {"model", *SHAPING, *OTHER}


@given(st.data(), requests, st.sampled_from(sorted(SHAPING)))
def test_keys_differ_when_a_shaping_field_differs(data: st.DataObject, request: CompletionRequest, name: str) -> None:
    value = data.draw(SHAPING[name])
    assume(value != getattr(request, name))
    assert key(replace(request, **{name: value})) != key(request)


@given(st.data(), requests)
def test_keys_are_equal_when_only_others_differ(data: st.DataObject, request: CompletionRequest) -> None:
    others = {name: data.draw(values) for name, values in OTHER.items()}
    assert key(replace(request, **others)) == key(request)


@given(requests, requests)
def test_keys_are_equal_exactly_when_the_shaping_fields_are(one: CompletionRequest, another: CompletionRequest) -> None:
    is_same = all(getattr(one, name) == getattr(another, name) for name in SHAPING)
    assert (key(one) == key(another)) is is_same


FULL = CompletionRequest(
    "fast",
    (ChatMessage("assistant", "content", "name", (ToolCall("id", "name", "{}"),), "call"),),
    tools=(Tool("name", "description", {"type": "object"}),),
    json_format=JsonFormat({"type": "object"}, "name"),
)
CHANGED: Mapping[type, Mapping[str, Any]] = {
    ChatMessage: {"role": "user", "content": "x", "name": "x", "tool_calls": (), "tool_call_id": "x"},
    ToolCall: {"id": "x", "name": "x", "arguments": "x", "provider_data": "x"},
    Tool: {"name": "x", "description": "x", "parameters": {}, "strict": True},
    JsonFormat: {"schema": {}, "name": "x"},
}


def change(part: Any, kind: type, name: str) -> Any:
    """The same with one field of one kind of part changed, however deep it lies."""
    if isinstance(part, tuple):
        return tuple(change(each, kind, name) for each in part)
    if isinstance(part, kind):
        return replace(part, **{name: CHANGED[kind][name]})
    if not is_dataclass(part):
        return part
    return replace(part, **{field.name: change(getattr(part, field.name), kind, name) for field in fields(part)})


@pytest.mark.parametrize("kind", CHANGED)
def test_every_field_of_every_part_shapes_the_answer(kind: type) -> None:
    names = {field.name for field in fields(kind)}
    assert names == CHANGED[kind].keys()
    keys = {key(change(FULL, kind, name)) for name in names}
    assert len({key(FULL), *keys}) == len(names) + 1


def test_parts_that_read_alike_side_by_side_are_told_apart() -> None:
    one = CompletionRequest("fast", (ChatMessage("user", "ab"), ChatMessage("user", "c")))
    another = CompletionRequest("fast", (ChatMessage("user", "a"), ChatMessage("user", "bc")))
    assert key(one) != key(another)


def test_numbers_are_equal_however_they_are_written() -> None:
    request = CompletionRequest("fast", (), temperature=0)
    assert key(request) == key(replace(request, temperature=0.0))


def test_the_order_of_a_schemas_fields_shapes_the_answer() -> None:
    one, another = {"a": {}, "b": {}}, {"b": {}, "a": {}}
    keys = [key(CompletionRequest("fast", (), json_format=JsonFormat(schema))) for schema in (one, another)]
    assert keys[0] != keys[1]


def test_any_mapping_may_be_a_schema() -> None:
    schema = {"type": "object"}
    keys = [
        key(CompletionRequest("fast", (), json_format=JsonFormat(each))) for each in (schema, MappingProxyType(schema))
    ]
    assert keys[0] == keys[1]


def fingerprint(*deployments: Deployment, **group: Any) -> str:
    fallback = ModelGroup("slow", (deploy("z"),))
    return build_fingerprints(build_catalog(ModelGroup("fast", deployments, **group), fallback))["fast"]


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "newer"},
        {"provider": "other"},
        {"base_url": "http://elsewhere"},
        {"options": {"think": True}},
        {"takes_temperature": False},
        {"supports": ("chat",)},
        {"default_max_tokens": 7},
    ],
)
def test_a_changed_deployment_does_not_answer_with_the_old_voice(changed: Mapping[str, Any]) -> None:
    assert fingerprint(replace(deploy("a"), **changed)) != fingerprint(deploy("a"))


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "renamed"},
        {"api_key": "new"},
        {"weight": 2.0},
        {"timeout_seconds": 1.0},
        {"limits": Limits(in_flight=1)},
        {"price": Price(Decimal(1), Decimal(1))},
    ],
)
def test_what_is_not_heard_in_an_answer_leaves_its_keys(changed: Mapping[str, Any]) -> None:
    assert fingerprint(replace(deploy("a"), **changed)) == fingerprint(deploy("a"))


def test_who_else_may_answer_is_part_of_the_fingerprint() -> None:
    a, b = deploy("a"), deploy("b")
    alone = fingerprint(a)
    assert len({alone, fingerprint(a, b), fingerprint(a, fallbacks=("slow",)), fingerprint(b)}) == 4


def test_groups_of_the_same_deployments_are_told_apart() -> None:
    catalog = build_catalog(ModelGroup("fast", (deploy("a"),)), ModelGroup("cheap", (deploy("a"),)))
    assert len(set(build_fingerprints(catalog).values())) == 2
