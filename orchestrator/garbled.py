"""Lets a worker live through what is on the broker's list but is no message at all.

kombu's Redis transport reads the list before anything of Celery's runs, and what it cannot read ends the worker. Here
such an entry becomes a message whose body cannot be decoded, which the consumer then keeps as evidence like any other.
"""

import base64
import json
import re
import uuid
from typing import Any, Final

from kombu.utils import json as kombu_json

GARBLED_CONTENT_TYPE: Final = "application/x-llmyard-garbled"
"""No decoder knows it, which is the point."""

_TAG: Final = re.compile(rb'"delivery_tag":\s*"([^"\\]+)"')

UNREADABLE: Final = (ValueError, RecursionError, TypeError, AttributeError, KeyError, ArithmeticError)
"""What kombu's reader raises: for what is no JSON, and from the conversions that `__type__` in it asks for."""


def read_entry(entry: str | bytes) -> Any:
    """What kombu keeps in Redis, as it reads it; what is not JSON becomes an envelope around it."""
    try:
        return kombu_json.loads(entry)  # type: ignore[no-untyped-call] # kombu publishes no types
    except UNREADABLE:
        return wrap(entry)


def as_envelope(entry: Any) -> dict[str, Any]:
    """An entry of the queue that can be handled as a message, whatever it was."""
    return entry if _is_envelope(entry) else wrap(json.dumps(entry, default=repr))


def _is_envelope(value: object) -> bool:
    """What `kombu.transport.virtual.Message` and the acknowledging of it take for granted."""
    if not isinstance(value, dict) or not isinstance(value.get("headers", {}), dict):
        return False
    properties = value.get("properties")
    if not isinstance(properties, dict) or not _is_address(properties.get("delivery_info")):
        return False
    return isinstance(properties.get("delivery_tag"), str) and _is_body(value.get("body"), properties)


def _is_address(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(part), str) for part in ("exchange", "routing_key"))


def _is_body(body: object, properties: dict[str, Any]) -> bool:
    if not isinstance(body, str) or properties.get("body_encoding") not in (None, "base64"):
        return False
    try:
        base64.b64decode(body if properties.get("body_encoding") else "")
    except ValueError:
        return False
    return True


def wrap(entry: str | bytes) -> dict[str, Any]:
    """An envelope whose body is the entry, and which no decoder takes."""
    raw = entry.encode("utf-8", "surrogatepass") if isinstance(entry, str) else entry
    return {
        "body": base64.b64encode(raw).decode(),
        "content-type": GARBLED_CONTENT_TYPE,
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": _find_tag(raw) or str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": "celery"},
        },
    }


def _find_tag(raw: bytes) -> str | None:
    """The entry's own tag, by sight: it may be recorded as unacknowledged under that, and would come back for ever."""
    found = _TAG.search(raw)
    return found and found.group(1).decode("utf-8", "replace")
