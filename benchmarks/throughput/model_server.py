"""The model server that everybody asks: as lean as asyncio allows, so that it is not what is measured.

    python model_server.py PORT

It answers `POST /v1/chat/completions` with one canned answer, at once or after the delay it was told, and counts
requests and how many were in flight together. `GET /control?delay_ms=200` sets the delay and starts the counts anew;
`GET /counts` tells them. Requests carry a Content-Length, as every client here sends it. A process of its own, standard
library only.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs, urlsplit

CONTENT: Final = "The answer is forty-two, as far as anybody can tell."
CHOICE: Final = {"index": 0, "message": {"role": "assistant", "content": CONTENT}, "finish_reason": "stop"}
USAGE: Final = {"prompt_tokens": 12, "completion_tokens": 14, "total_tokens": 26}
COMPLETION: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "bench-model",
    "choices": [CHOICE],
    "usage": USAGE,
}
LENGTH: Final = b"content-length:"
HEAD_END: Final = b"\r\n\r\n"


def build_reply(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


ANSWER: Final = build_reply(json.dumps(COMPLETION).encode())


class Desk:
    """What all connections share: the delay and the counts."""

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, delay_seconds: float) -> None:
        self.delay_seconds = delay_seconds
        self.requests = self.answered = self.in_flight = self.peak = 0

    def take(self) -> None:
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def control(self, target: str) -> bytes:
        """The reply to a question of the bench's own."""
        url = urlsplit(target)
        if url.path == "/control":
            self.begin(float(parse_qs(url.query)["delay_ms"][0]) / 1000)
        counts = {"requests": self.requests, "answered": self.answered, "peak": self.peak}
        return build_reply(json.dumps(counts).encode())


class Conversation(asyncio.Protocol):
    """One connection, kept alive; requests on it follow one another."""

    def __init__(self, desk: Desk, later: Callable[..., object]) -> None:
        self._desk = desk
        self._later = later
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "TCP gives one"
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._find_end()) is not None:
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            self._handle(request)

    def _find_end(self) -> int | None:
        """Of the first request that has come whole."""
        head_end = self._buffer.find(HEAD_END)
        if head_end < 0:
            return None
        end = head_end + len(HEAD_END) + find_length(self._buffer[:head_end])
        return end if len(self._buffer) >= end else None

    def _handle(self, request: bytes) -> None:
        if request.startswith(b"GET "):
            self._transport.write(self._desk.control(request.split(b" ", 2)[1].decode()))
            return
        self._desk.take()
        if self._desk.delay_seconds:
            self._later(self._desk.delay_seconds, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._desk.in_flight -= 1
        self._desk.answered += 1
        if not self._transport.is_closing():
            self._transport.write(ANSWER)


def find_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(LENGTH)
    return int(lowered[start + len(LENGTH) :].split(b"\r\n", 1)[0]) if start >= 0 else 0


async def serve(port: int) -> None:
    loop, desk = asyncio.get_running_loop(), Desk()
    server = await loop.create_server(lambda: Conversation(desk, loop.call_later), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
