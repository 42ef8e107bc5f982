"""What of a JSON schema providers can enforce. Pure. Who asked checks the answer against the whole schema anyway."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_KEPT = ("type", "enum", "const", "title", "description", "required", "$ref")
_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_NAMED = ("properties", "$defs")
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


def is_closed(schema: Schema) -> bool:
    """Every object lists all its properties as required and allows no others, as OpenAI's `strict` wants it."""
    try:
        return _is_closed(schema)
    except (AttributeError, TypeError):  # no schema: whoever checks it says so
        return False


def _is_closed(schema: object) -> bool:
    if isinstance(schema, list):
        return all(_is_closed(part) for part in schema)
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != set(properties):
            return False
        return _is_closed(list(properties.values())) and _has_closed_parts(schema)
    return _has_closed_parts(schema)


def _has_closed_parts(schema: Schema) -> bool:
    parts = [schema.get(key) for key in ("items", *_LISTS)]
    return _is_closed(parts) and _is_closed(list((schema.get("$defs") or {}).values()))


def close(schema: Schema) -> dict[str, Any] | None:
    """The part of the schema that Anthropic enforces, every object of it closed.

    None where that would forbid what the schema allows: keys that nobody knows beforehand.
    """
    try:
        return _close(schema)
    except (_OpenObjectError, AttributeError, TypeError):  # the latter two: no schema at all
        return None


class _OpenObjectError(Exception):
    """An object whose keys are not known beforehand."""


def _close(schema: Schema) -> dict[str, Any]:
    closed = {key: schema[key] for key in _KEPT if key in schema}
    for key, kept in _LISTS.items():
        if key in schema:
            closed[kept] = [_close(part) for part in schema[key]]
    for key in _NAMED:
        if key in schema:
            closed[key] = {name: _close(part) for name, part in schema[key].items()}
    if isinstance(schema.get("items"), Mapping):
        closed["items"] = _close(schema["items"])
    if schema.get("format") in _FORMATS:
        closed["format"] = schema["format"]
    if schema.get("minItems") in (0, 1):
        closed["minItems"] = schema["minItems"]
    if _is_object(schema):
        closed["additionalProperties"] = False
    return closed


def _is_object(schema: Schema) -> bool:
    kind = schema.get("type")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        return False
    if schema.get("additionalProperties") or ("properties" not in schema and "additionalProperties" not in schema):
        raise _OpenObjectError
    return True
