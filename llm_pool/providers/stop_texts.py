"""Ends an answer at a text that is not to be said, for models that know tokens only."""

from collections.abc import Sequence


class StopTexts:
    """Takes an answer piece by piece, and holds back what may be the beginning of such a text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [text for text in texts if text]
        self._held = ""
        self.was_met = False

    def add(self, piece: str) -> str:
        """What may be said now."""
        said = self._held + piece
        places = [place for text in self._texts if (place := said.find(text)) >= 0]
        if places:
            self.was_met, self._held = True, ""
            return said[: min(places)]
        kept = max((_measure_beginning(said, text) for text in self._texts), default=0)
        self._held = said[len(said) - kept :]
        return said[: len(said) - kept]

    def flush(self) -> str:
        """The rest, once nothing more comes."""
        rest, self._held = self._held, ""
        return rest


def _measure_beginning(said: str, text: str) -> int:
    """How many of the last characters may go on to be `text`."""
    longest = min(len(said), len(text) - 1)
    return next((size for size in range(longest, 0, -1) if said.endswith(text[:size])), 0)
