"""Which text may be sent to a provider and kept in Postgres."""

import re

STANDS_IN = "\N{REPLACEMENT CHARACTER}"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def find_fault(text: str) -> str | None:
    """What keeps `text` from being stored, in words; None for nearly every text there is."""
    if "\x00" in text:
        return "it holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair"
    return None


def make_storable(text: str) -> str:
    """A provider's text with what cannot be stored replaced: an answer that was paid for is kept."""
    return _UNSTORABLE.sub(STANDS_IN, text)
