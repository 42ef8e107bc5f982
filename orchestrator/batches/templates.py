"""A prompt made of a line's fields: `{{name}}` is replaced by what the line has under that name; pure."""

import json
import re
from collections.abc import Mapping
from typing import Final

from shared.errors import InputError

_PLACE: Final = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")


def list_places(template: str) -> tuple[str, ...]:
    """The names it asks for."""
    return tuple(_PLACE.findall(template))


def fill(template: str, fields: Mapping[str, object]) -> str:
    """
    Raises:
        InputError: the line lacks one of the fields.
    """

    def find(place: re.Match[str]) -> str:
        name = place[1]
        if name not in fields or fields[name] is None:
            known = ", ".join(fields) or "none"
            raise InputError(name, "is missing, and the template asks for it", f"add it; the fields are: {known}")
        return write_text(fields[name])

    return _PLACE.sub(find, template)


def write_text(value: object) -> str:
    """A field as it reads in a prompt: what is no text is written as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
