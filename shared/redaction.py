"""Takes secrets out of what is logged: by the names of fields, and by what keys and passwords look like in a text."""

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[redacted]"

SECRET_NAMES: Final = frozenset(
    {
        "api_key",
        "apikey",
        "x_api_key",
        "authorization",
        "proxy_authorization",
        "password",
        "passwd",
        "secret",
        "client_secret",
        "token",
        "access_token",
        "refresh_token",
        "auth_token",
        "cookie",
        "set_cookie",
    }
)
"""Fields whose value is never shown; in lower case, with underscores. `prompt_tokens` and `key_id` are none."""

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
"""Values that hold no further fields; nearly every event has only such."""

_URL_PASSWORD: Final = re.compile(r"(?P<before>://[^\s/?#:@\"']*:)[^\s/\"']*(?=@)")
_BEARER: Final = re.compile(r"(?P<before>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE)
_KEY: Final = re.compile(r"(?P<before>\b)(?:sk-[\w-]{6,}|(?:gsk|xai|hf|pplx|r8|ghp|tgp)[_-][\w-]{16,}|AIza[\w-]{20,})")
_NAMED: Final = re.compile(
    r"(?P<before>(?:api[_-]?key|authorization|passw(?:or)?d|secret|token|cookie)[\"'\\]*\s*[=:]\s*[\"'\\]*)"
    r"(?!\[redacted\]|bearer\b|basic\b|none\b|null\b|true\b|false\b)[^\s\"'\\,;&)}\]]+",
    re.IGNORECASE,
)


_SEARCHES: Final = tuple(
    (word, search)
    for search, words in {
        _URL_PASSWORD: ("://",),
        _BEARER: ("bearer ", "basic "),
        _KEY: ("sk-", "gsk_", "xai-", "hf_", "pplx-", "r8_", "ghp_", "tgp_", "aiza"),
        _NAMED: ("api", "authorization", "passw", "secret", "token", "cookie"),
    }.items()
    for word in words
)
"""A search is made only where one of its words stands, as nearly every line is free of them."""


def redact_text(text: str) -> str:
    """The same text, lacking what looks like a secret."""
    lower = text.lower().replace("_tokens", "")  # the counts that stand in most of our lines
    searches = dict.fromkeys(search for word, search in _SEARCHES if word in lower)
    for search in searches:
        text = search.sub(_replace, text)
    return text


def redact_fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same fields, without the values of those that are named like a secret, however deep they stand."""
    if SECRET_NAMES.isdisjoint(fields) and _PLAIN.issuperset(map(type, fields.values())):
        return fields
    return _redact_all(fields)


def _redact_all(fields: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): REDACTED if value and is_secret_name(str(name)) else _redact(value) for name, value in fields.items()
    }


def is_secret_name(name: str) -> bool:
    return name in SECRET_NAMES or name.lower().replace("-", "_") in SECRET_NAMES


def _redact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _redact_all(value)
    if isinstance(value, list | tuple):
        return [_redact(inner) for inner in value]
    return value


def _replace(match: re.Match[str]) -> str:
    return match["before"] + REDACTED
