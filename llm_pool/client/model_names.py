"""What the name of a model tells of it, where no catalogue does: whether it is known to refuse a temperature. Pure."""

import re
from typing import Final

_REASONS: Final = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d))(?!.*-chat)")
"""OpenAI's models that think first: o1 and on, gpt-5 and on, not those made for chats only."""
_CLAUDE: Final = re.compile(r"claude-[a-z]+-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)")
_CLAUDE_WITHOUT: Final = (4, 7)
"""From this version on the field is answered with HTTP 400."""


def takes_temperature(model: str) -> bool:
    """False for those known to refuse it with HTTP 400; of a model nobody knows the user may decide."""
    claude = _CLAUDE.search(model)
    if claude is not None:
        return (int(claude["major"]), int(claude["minor"] or 0)) < _CLAUDE_WITHOUT
    return _REASONS.search(model) is None
