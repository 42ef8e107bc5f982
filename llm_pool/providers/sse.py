"""Server-sent events: bytes in as they come, the data of whole events out.

An event's name is left out: every dialect spoken here says in the data what it is.
"""

from shared.errors import LLMBrokenAnswerError

LARGEST_EVENT_BYTES = 8 * 1024 * 1024
"""What is held of an event that does not end; a token's is a few hundred bytes."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventReader:
    """Takes the pieces of one stream in order; they may be cut anywhere, inside a letter or between CR and LF too."""

    def __init__(self, largest_event_bytes: int = LARGEST_EVENT_BYTES) -> None:
        self._largest_event_bytes = largest_event_bytes
        self._line = b""
        """The beginning of a line whose end has not come."""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._ended_with_cr = False
        self._is_first = True

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end in this piece.

        Raises:
            LLMBrokenAnswerError: an event is too large.
        """
        if self._ended_with_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._ended_with_cr = piece.endswith(b"\r")
        lines = (self._line + piece).splitlines(keepends=True)
        self._line = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        events = [event for line in lines if (event := self._take(line.rstrip(b"\r\n"))) is not None]
        if len(self._line) + self._data_bytes > self._largest_event_bytes:
            raise LLMBrokenAnswerError("an event of the stream is too large")
        return events

    def finish(self) -> list[bytes]:
        """What came without the blank line that should end it; the standard drops it, some servers rely on it."""
        line, self._line = self._line, b""
        events = [self._take(line), self._take(b"")] if line else [self._take(b"")]
        return [event for event in events if event is not None]

    def _take(self, line: bytes) -> bytes | None:
        """The event that ends with this line, if one does."""
        if self._is_first:
            line, self._is_first = line.removeprefix(_BYTE_ORDER_MARK), False
        if not line:
            return self._end_event()
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            self._data_bytes += len(line)
        return None  # a comment, such as the keepalives of OpenRouter and mlx-lm, or a field of no use here

    def _end_event(self) -> bytes | None:
        if not self._data:
            return None
        event = b"\n".join(self._data)
        self._data = []
        self._data_bytes = 0
        return event or None
