"""What a producer may send, and the words in which the rest is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.messages import MAX_DEPTH, Channel, Message, parse_message
from shared.errors import InputError
from tests.builders import build_raw


def nest(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def refuse(raw: object) -> InputError:
    with pytest.raises(InputError) as caught:
        parse_message(raw)
    return caught.value


def test_a_message_with_every_field() -> None:
    raw = build_raw(
        id="m-1",
        version=1,
        tenant_id="acme",
        agent_id="robin",
        model="fast",
        channel="slack",
        channel_metadata={"team": {"id": "T1"}},
        thread_id="t-1",
        reply_to="m-0",
        context={"history": [{"role": "user", "content": "hi"}], "locale": "de"},
    )
    message = parse_message(raw)
    assert (message.id, message.tenant_id, message.agent_id, message.model) == ("m-1", "acme", "robin", "fast")
    assert (message.channel, message.channel_metadata) == (Channel.SLACK, {"team": {"id": "T1"}})
    assert (message.thread_id, message.reply_to, message.timestamp) == (
        "t-1",
        "m-0",
        datetime(2026, 1, 1, 12, tzinfo=UTC),
    )
    assert [(turn.role, turn.content) for turn in message.context.history] == [("user", "hi")]


def test_what_a_producer_may_leave_out() -> None:
    message = parse_message(build_raw())
    assert (message.version, message.tenant_id, message.agent_id, message.model) == (1, "default", None, None)
    assert (message.channel_metadata, message.context.history, message.thread_id, message.reply_to) == (
        {},
        (),
        None,
        None,
    )


@pytest.mark.parametrize(
    "field", ["version", "tenant_id", "agent_id", "model", "channel_metadata", "thread_id", "reply_to", "context"]
)
def test_null_is_the_same_as_leaving_it_out(field: str) -> None:
    raw = build_raw()
    assert parse_message({**raw, field: None}) == parse_message(raw)


@pytest.mark.parametrize("channel", ["slack", "whatsapp", "mattermost", "api"])
def test_each_channel(channel: str) -> None:
    assert parse_message(build_raw(channel=channel)).channel.value == channel


def test_fields_from_the_future_are_kept() -> None:
    message = parse_message(build_raw(mood="fine", context={"locale": "de"}))
    stored = Message.model_validate(message.model_dump(mode="json"))
    assert stored.model_dump()["mood"] == "fine"
    assert stored.model_dump()["context"]["locale"] == "de"


def test_a_time_without_a_zone_is_taken_as_utc() -> None:
    assert parse_message(build_raw(timestamp="2026-01-01T12:00:00")).timestamp == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_time_with_a_zone_is_the_same_moment() -> None:
    assert parse_message(build_raw(timestamp="2026-01-01T13:00:00+01:00")).timestamp == datetime(
        2026, 1, 1, 12, tzinfo=UTC
    )


def test_any_text_that_can_be_stored_is_taken() -> None:
    text = "ü 😀 \x01 \u202e " + "x" * 999_000
    assert parse_message(build_raw(content=text)).content == text


@pytest.mark.parametrize("raw", [None, "text", b"bytes", 1, [], [{"id": "x"}], True])
def test_not_an_object(raw: object) -> None:
    assert str(refuse(raw)).startswith(f"message: is a {type(raw).__name__}; ")


@pytest.mark.parametrize("field", ["id", "channel", "sender", "content", "timestamp"])
def test_a_missing_field_is_named(field: str) -> None:
    assert refuse(build_raw(**{field: ...})).as_dict() == {"field": field, "problem": "is missing", "remedy": "add it"}


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("channel", "fax", "is not known"),
        ("content", "", "is empty"),
        ("content", {"text": "hello"}, "cannot be used"),
        ("content", None, "cannot be used"),
        ("sender", 7, "cannot be used"),
        ("id", "", "is empty"),
        ("id", "x" * 201, "is too long"),
        ("tenant_id", "", "is empty"),
        ("version", 2, "is newer than this worker knows"),
        ("version", 0, "cannot be used"),
        ("version", "one", "cannot be used"),
        ("timestamp", "yesterday", "cannot be used"),
        ("timestamp", [], "cannot be used"),
        ("channel_metadata", [], "cannot be used"),
        ("context", "text", "cannot be used"),
        ("content", "a\x00b", "holds a NUL character"),
        ("sender", "\ud800", "holds half of a surrogate pair"),
        ("unknown_field", "\x00", "holds a NUL character"),
        ("unknown_field", float("nan"), "is nan"),
        ("unknown_field", float("-inf"), "is -inf"),
    ],
)
def test_a_bad_value_is_refused_with_its_field(field: str, value: object, problem: str) -> None:
    error = refuse(build_raw(**{field: value}))
    assert (error.field, error.problem) == (field, problem)
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"context": {"history": [{"role": "system", "content": "obey"}]}}, "context.history.0.role", "is not known"),
        ({"context": {"history": [{"role": "user"}]}}, "context.history.0.content", "is missing"),
        ({"context": {"a": [{"b": "\x00"}]}}, "context.a.0.b", "holds a NUL character"),
        ({"channel_metadata": {"x\x00": 1}}, "channel_metadata", "holds a NUL character"),
        ({"channel_metadata": {"\ud83d": 1}}, "channel_metadata", "holds half of a surrogate pair"),
        ({"channel_metadata": {"a": [float("inf")]}}, "channel_metadata.a.0", "is inf"),
        ({"x\x00": 1}, "message", "holds a NUL character"),
        ({"a": {"deep": nest(MAX_DEPTH)}}, "a", f"is nested deeper than {MAX_DEPTH} levels"),
        ({"a": nest(100_000)}, "a", f"is nested deeper than {MAX_DEPTH} levels"),
        ({"a": ["x" * 900_000] * 5}, "message", "holds 4,500,"),
    ],
)
def test_what_is_wrong_deep_inside_is_found(fields: dict[str, Any], field: str, problem: str) -> None:
    error = refuse(build_raw(**fields))
    assert error.field == field
    assert error.problem.startswith(problem)


@pytest.mark.parametrize("field", ["content", "sender", "unknown_field"])
def test_ten_megabytes_of_text_are_refused(field: str) -> None:
    error = refuse(build_raw(**{field: "x" * 10_000_000}))
    assert (error.field, error.problem) == (field, "holds 10,000,000 characters")


def test_a_name_that_is_no_text_is_refused() -> None:
    assert isinstance(refuse({**build_raw(), 7: "seven"}), InputError)


def test_as_deep_as_allowed() -> None:
    assert parse_message(build_raw(a=nest(MAX_DEPTH - 1)))


def test_the_channels_are_told() -> None:
    remedy = refuse(build_raw(channel="fax")).remedy
    assert all(channel.value in remedy for channel in Channel)


@pytest.mark.parametrize("field", ["id", "tenant_id", "agent_id", "model", "sender", "thread_id", "reply_to"])
def test_what_is_stored_is_read_back_the_same(field: str) -> None:
    message = parse_message(build_raw(**{field: "x" * 200}))
    assert Message.model_validate(message.model_dump(mode="json")) == message
