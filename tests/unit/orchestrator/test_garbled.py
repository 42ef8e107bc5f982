"""Whatever stands on the broker's list, kombu gets an envelope it can take, deliver and acknowledge."""

import base64
import json
from typing import Any

import pytest
from kombu.transport.redis import QoS
from kombu.transport.virtual import Message

from orchestrator.garbled import GARBLED_CONTENT_TYPE, as_envelope, read_entry

ENVELOPE = {
    "body": base64.b64encode(b"[[], {}, {}]").decode(),
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"id": "t-1", "task": "handle_message"},
    "properties": {
        "body_encoding": "base64",
        "delivery_tag": "tag-1",
        "delivery_info": {"exchange": "", "routing_key": "celery"},
    },
}


class Channel:
    """What a message asks of its channel while it is read."""

    def decode_body(self, body: Any, encoding: str | None = None) -> Any:
        return base64.b64decode(body) if encoding else body


def change(**fields: Any) -> str:
    return json.dumps({name: value for name, value in {**ENVELOPE, **fields}.items() if value is not ...})


def with_properties(**fields: Any) -> str:
    properties = {**ENVELOPE["properties"], **fields}  # type: ignore[dict-item]  # a test's own literal
    return change(properties={name: value for name, value in properties.items() if value is not ...})


GARBAGE = [
    "",
    b"",
    "not json",
    b"\xff\xfe\x00",
    "[" * 100_000,
    "null",
    "7",
    '"text"',
    "[]",
    "{}",
    "NaN",
    '{"__type__": "uuid", "__value__": 5}',
    '{"__type__": "bytes", "__value__": 5}',
    '{"__type__": "decimal", "__value__": "x"}',
    '{"__type__": "datetime", "__value__": {}}',
    '{"__type__": "unknown", "__value__": 5}',
    '{"__type__": [], "__value__": 5}',
    change(body=...),
    change(body=7),
    change(body="€"),
    change(body="abc"),
    change(body="\ud800"),
    change(headers=[]),
    change(headers="text"),
    change(headers=None),
    change(properties=...),
    change(properties=[]),
    with_properties(delivery_tag=...),
    with_properties(delivery_tag=7),
    with_properties(delivery_tag=[]),
    with_properties(delivery_info=...),
    with_properties(delivery_info=[]),
    with_properties(delivery_info={}),
    with_properties(delivery_info={"exchange": ""}),
    with_properties(delivery_info={"exchange": [], "routing_key": {}}),
    with_properties(body_encoding="rot13"),
    with_properties(body_encoding=[]),
]


def deliver(envelope: dict[str, Any]) -> Message:
    """As kombu does with what it has read, up to where it would be noted as unacknowledged."""
    message = Message(envelope, channel=Channel())
    exchange, routing_key = message.delivery_info["exchange"], message.delivery_info["routing_key"]
    assert isinstance(exchange, str)
    assert isinstance(routing_key, str)
    json.dumps([message._raw, exchange, routing_key])
    assert {message.delivery_tag: message}
    return message


def test_a_message_of_celerys_is_left_as_it_is() -> None:
    assert as_envelope(read_entry(json.dumps(ENVELOPE))) == ENVELOPE
    assert as_envelope(read_entry(json.dumps(ENVELOPE).encode())) == ENVELOPE


def test_what_kombu_keeps_of_an_unacknowledged_message_is_left_as_it_is() -> None:
    """The same reader serves it, and its three parts are no envelope."""
    assert read_entry(json.dumps([ENVELOPE, "", "celery"])) == [ENVELOPE, "", "celery"]


@pytest.mark.parametrize("entry", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_can_be_delivered(entry: str | bytes) -> None:
    message = deliver(as_envelope(read_entry(entry)))
    assert message.content_type == GARBLED_CONTENT_TYPE
    expected = entry if isinstance(entry, bytes) else entry.encode("utf-8", "surrogatepass")
    assert message.body == expected


def test_each_entry_has_a_tag_of_its_own() -> None:
    first, second = (deliver(as_envelope(read_entry("x"))) for _ in range(2))
    assert first.delivery_tag != second.delivery_tag


def test_kombu_still_notes_what_was_read_in_the_same_way() -> None:
    # What `deliver` does above is taken from there.
    assert "exchange" in QoS.append.__code__.co_consts
    assert "routing_key" in QoS.append.__code__.co_consts
