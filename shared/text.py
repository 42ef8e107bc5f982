"""Which text may be sent to a provider and kept in Postgres."""

import re
from dataclasses import dataclass

STANDS_IN = "\N{REPLACEMENT CHARACTER}"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TextFault:
    """What keeps a text from being stored, and how to mend it; in words, after the field's name."""

    problem: str
    remedy: str


_NUL = TextFault("holds a NUL character", "remove \\u0000")
_SURROGATE = TextFault("holds half of a surrogate pair", "send valid Unicode")


def find_fault(text: str) -> TextFault | None:
    """None for nearly every text there is."""
    if "\x00" in text:
        return _NUL
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE
    return None


def join_surrogates(text: str) -> str:
    """Halves of a pair that have come to stand side by side become the one character they mean."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def make_storable(text: str) -> str:
    """A provider's text with what cannot be stored replaced: an answer that was paid for is kept."""
    return text if find_fault(text) is None else _UNSTORABLE.sub(STANDS_IN, text)
