"""What becomes of a record: a message, or the reason why it cannot be asked."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from orchestrator.agents.prompt_request import build_prompt_request
from orchestrator.batches.ids import build_batch_id
from orchestrator.batches.input_files import Record
from orchestrator.batches.lines import LineMaker, find_shape
from orchestrator.batches.records import BatchOptions, NewLine, RejectedLine, Shape
from orchestrator.messages import Message, parse_message
from shared.errors import NotFoundError

CHAT = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}


def check_model(name: str) -> None:
    if name not in ("fast", "quality"):
        raise NotFoundError("model", f"no model group {name!r}", "use fast or quality")


def build_maker(shape: Shape = Shape.PROMPTS, purse: Mapping[str, str] | None = None, **options: Any) -> LineMaker:
    return LineMaker(
        batch_id=build_batch_id(),
        tenant_id="acme",
        shape=shape,
        options=BatchOptions(**options),
        noun="line",
        default_model="quality",
        check_model=check_model,
        timestamp="2026-01-01T12:00:00+00:00",
        purse=purse,
    )


def make(maker: LineMaker, value: object) -> Message:
    made = maker.make(5, Record(6, value))
    assert isinstance(made, NewLine), made
    return parse_message(json.loads(made.body))


def refuse(maker: LineMaker, value: object) -> str:
    made = maker.make(5, Record(6, value))
    assert isinstance(made, RejectedLine), made
    assert made.line == 5
    parse_message(json.loads(made.body))
    result = json.loads(made.result)
    assert (result["state"], result["error"]["type"]) == ("failed", "InputError")
    return str(result["error"]["message"])


def test_a_line_of_an_openai_batch() -> None:
    maker = build_maker(Shape.OPENAI)
    body = {**CHAT, "max_tokens": 9, "temperature": 0.5, "response_format": {"type": "json_object"}}
    message = make(maker, {**LINE, "body": body})
    request = build_prompt_request(message)
    assert (message.id, message.tenant_id) == (f"{maker.batch_id}:000000005", "acme")
    assert message.channel_metadata == {"custom_id": "a"}
    assert (request.model, request.max_tokens, request.temperature, request.tenant_id) == ("fast", 9, 0.5, "acme")
    assert [(turn.role, turn.content) for turn in request.messages] == [("user", "hello")]
    assert request.json_format


def test_the_model_of_the_options_goes_before_a_line_s_own() -> None:
    line = {**LINE, "body": {**CHAT, "model": "gpt-4o"}}
    assert build_prompt_request(make(build_maker(Shape.OPENAI, model="quality"), line)).model == "quality"
    assert "model: no model group 'gpt-4o'" in refuse(build_maker(Shape.OPENAI), line)


@pytest.mark.parametrize("value", ["hello", {"prompt": "hello"}, {"prompt": "hello", "label": 3}])
def test_a_plain_prompt(value: object) -> None:
    request = build_prompt_request(make(build_maker(), value))
    assert (request.model, [turn.content for turn in request.messages]) == ("quality", ["hello"])


def test_a_prompt_may_name_itself_and_its_model() -> None:
    message = make(build_maker(), {"prompt": "hello", "id": 7, "model": "fast"})
    assert (message.channel_metadata, message.model) == ({"custom_id": "7"}, "fast")


def test_messages_without_the_rest_of_a_batch_line() -> None:
    message = make(build_maker(), {"messages": CHAT["messages"], "id": "x", "max_tokens": 4})
    assert build_prompt_request(message).max_tokens == 4
    assert message.channel_metadata == {"custom_id": "x"}


def test_options_for_every_prompt() -> None:
    maker = build_maker(template="{{ a }} and {{b}}", system="Be brief.", temperature=0.25, max_tokens=5)
    request = build_prompt_request(make(maker, {"a": "one", "b": {"c": 2}}))
    assert [turn.content for turn in request.messages] == ["Be brief.", 'one and {"c": 2}']
    assert (request.temperature, request.max_tokens) == (0.25, 5)


def test_another_column() -> None:
    message = make(build_maker(column="question"), {"question": "why", "prompt": "not this"})
    assert build_prompt_request(message).messages[0].content == "why"


def test_every_line_carries_the_batch_s_purse() -> None:
    message = make(build_maker(purse={"name": "batch:1", "limit_usd": "5"}), "hello")
    assert message.purse
    assert (message.purse.name, message.purse.limit_usd) == ("batch:1", Decimal(5))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"custom_id": None}, "custom_id: is no text"),
        ({"custom_id": "x" * 513}, "custom_id: is no text; write a text of at most 512 characters"),
        ({"method": "GET"}, "method: is 'GET'; write POST"),
        ({"url": "/v1/embeddings"}, "url: is '/v1/embeddings'; write /v1/chat/completions"),
        ({"body": "hello"}, "body: is no JSON object"),
        ({"body": {**CHAT, "messages": []}}, "body.messages: is empty"),
        ({"body": {**CHAT, "messages": [{"role": "user", "content": 3}]}}, "body.messages.0.content: "),
        ({"body": {**CHAT, "messages": [{"role": "boss", "content": "x"}]}}, "body.messages.0.role: "),
        ({"body": {**CHAT, "temperature": 3}}, "body.temperature: "),
        ({"body": {**CHAT, "max_tokens": 0}}, "body.max_tokens: "),
        ({"body": {**CHAT, "n": 2}}, "body.n: it cannot be honoured here; leave it out"),
        ({"body": {"messages": CHAT["messages"]}}, "body.model: is missing"),
    ],
)
def test_a_fault_of_an_openai_line_names_line_field_and_remedy(change: dict[str, Any], told: str) -> None:
    assert refuse(build_maker(Shape.OPENAI), {**LINE, **change}).startswith(f"line 6, {told}")


@pytest.mark.parametrize(
    ("options", "value", "told"),
    [
        ({}, {"promt": "x"}, "prompt: is missing; add it, or name another with --column: promt"),
        ({}, {"prompt": 3}, "prompt: is no text"),
        ({}, {"prompt": " "}, "prompt: is empty"),
        ({}, 3, "prompt: is no text"),
        ({}, {"prompt": "a\x00b"}, "prompt: holds a NUL character"),
        ({"template": "{{a}}"}, {"b": 1}, "a: is missing, and the template asks for it; add it; the fields are: b"),
        ({}, {"prompt": "x", "model": "gpt-4o"}, "model: no model group 'gpt-4o'"),
    ],
)
def test_a_fault_of_a_prompt(options: dict[str, Any], value: object, told: str) -> None:
    assert refuse(build_maker(**options), value).startswith(f"line 6, {told}")


def test_a_line_that_cannot_be_asked_keeps_its_own_id() -> None:
    made = build_maker(Shape.OPENAI).make(1, Record(1, {**LINE, "body": 3}))
    assert json.loads(made.body)["channel_metadata"] == {"custom_id": "a"}


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (LINE, Shape.OPENAI),
        ({"custom_id": "a", "body": {}}, Shape.OPENAI),
        ("hello", Shape.PROMPTS),
        ({"prompt": "hello", "custom_id": "a"}, Shape.PROMPTS),
        ({"body": "a column of mine"}, Shape.PROMPTS),
    ],
)
def test_the_first_record_tells_what_a_file_holds(value: object, shape: Shape) -> None:
    assert find_shape(Record(1, value)) is shape
