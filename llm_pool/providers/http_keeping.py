"""The connections of a pool that are kept open between calls."""

import asyncio
from typing import Final, NamedTuple

from llm_pool.providers.http_conversation import Conversation

KEPT_SECONDS: Final = 15.0
"""Servers close what stays idle for longer, and a question sent meanwhile would be lost."""


class _Idle(NamedTuple):
    since: float
    conversation: Conversation


class KeptConversations:
    """Of one event loop. The one that was used last is used next, so that those too many grow old."""

    def __init__(self) -> None:
        self._in_use: set[Conversation] = set()
        self._idle: dict[str, list[_Idle]] = {}
        """By place, the oldest first."""
        self._tidying: asyncio.TimerHandle | None = None

    def take(self, place: str) -> Conversation | None:
        """None where a new one is needed."""
        idle = self._idle.get(place)
        while idle:
            since, conversation = idle.pop()
            if conversation.is_reusable and since > _find_too_old():
                self._in_use.add(conversation)
                return conversation
            conversation.close()
        return None

    def add(self, conversation: Conversation) -> None:
        """A new one, in use."""
        self._in_use.add(conversation)

    def put_back(self, place: str, conversation: Conversation) -> None:
        """For the next question; it is closed instead where there cannot be one."""
        self._in_use.discard(conversation)
        if not conversation.is_reusable:
            conversation.close()
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(place, []).append(_Idle(loop.time(), conversation))
        if self._tidying is None:
            self._tidying = loop.call_later(KEPT_SECONDS, self._tidy)

    def close(self) -> None:
        """All of them, at once."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        for conversation in (*self._in_use, *(each.conversation for idle in self._idle.values() for each in idle)):
            conversation.close()
        self._idle.clear()

    def _tidy(self) -> None:
        """Close what has been idle for too long; later once more, as long as there is something to look after."""
        too_old = _find_too_old()
        for place, idle in list(self._idle.items()):
            while idle and idle[0].since <= too_old:
                idle.pop(0).conversation.close()
            if not idle:
                del self._idle[place]
        self._tidying = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._tidy) if self._idle else None


def _find_too_old() -> float:
    """What has been idle since then is not kept any longer."""
    return asyncio.get_running_loop().time() - KEPT_SECONDS
