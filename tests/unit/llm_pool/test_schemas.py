"""What of a JSON schema providers can enforce."""

import pytest

from llm_pool.providers.schemas import Schema, close, is_closed

TEXT = {"type": "string"}
CLOSED = {"type": "object", "properties": {"a": TEXT}, "required": ["a"], "additionalProperties": False}
OPTIONAL = {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}
OPEN = {"type": "object", "properties": {"a": TEXT}, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        CLOSED,
        TEXT,
        {"type": "array", "items": CLOSED},
        {**CLOSED, "properties": {"a": {"anyOf": [CLOSED, {"type": "null"}]}}},
        {"$defs": {"x": CLOSED}, "$ref": "#/$defs/x"},
    ],
)
def test_closed(schema: Schema) -> None:
    assert is_closed(schema)


@pytest.mark.parametrize(
    "schema",
    [
        OPTIONAL,
        OPEN,
        {"type": "object"},
        {"properties": {"a": TEXT}},
        {"type": "array", "items": OPEN},
        {**CLOSED, "properties": {"a": OPEN}},
        {"anyOf": [CLOSED, OPEN]},
        {"$defs": {"x": OPEN}, "$ref": "#/$defs/x"},
        {"type": "object", "properties": ["a"], "additionalProperties": False},
        {"type": "object", "properties": {}, "required": 7, "additionalProperties": False},
    ],
)
def test_not_closed(schema: Schema) -> None:
    assert not is_closed(schema)


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (CLOSED, CLOSED),
        (OPEN, {**OPEN, "additionalProperties": False}),
        (
            {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 5},
            {"type": "array", "items": {"type": "integer"}},
        ),
        ({"type": "array", "items": TEXT, "minItems": 1}, {"type": "array", "items": TEXT, "minItems": 1}),
        ({"oneOf": [TEXT, OPEN]}, {"anyOf": [TEXT, {**OPEN, "additionalProperties": False}]}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "phone", "pattern": "[0-9]+"}, TEXT),
        ({"$defs": {"x": OPEN}, "$ref": "#/$defs/x"}, {"$defs": {"x": close(OPEN)}, "$ref": "#/$defs/x"}),
        ({"enum": ["a", "b"], "description": "one of"}, {"enum": ["a", "b"], "description": "one of"}),
        (
            {"type": ["object", "null"], "properties": {}},
            {"type": ["object", "null"], "properties": {}, "additionalProperties": False},
        ),
    ],
)
def test_what_can_be_enforced(schema: Schema, closed: Schema) -> None:
    assert close(schema) == closed


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": TEXT},
        {"type": "array", "items": {"type": "object", "additionalProperties": True, "properties": {"a": TEXT}}},
        {"type": "object", "properties": {"a": 7}},
        {"type": "object", "properties": ["a"]},
        {"anyOf": 7},
    ],
)
def test_what_would_forbid_what_the_schema_allows_is_left_alone(schema: Schema) -> None:
    assert close(schema) is None
