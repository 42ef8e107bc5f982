"""The model server of the batches: each answer names its question, and calls are counted by question.

    python -m benchmarks.batches.model_server PORT

As lean as that of `benchmarks.throughput`, on which it is built; `GET /calls` tells how often each question was asked.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from typing import Final

from benchmarks.throughput.model_server import CHOICE, COMPLETION, Conversation, Desk, build_reply

QUESTION: Final = re.compile(rb"question (\d+)")
PLACE: Final = "THE ANSWER"
TEMPLATE: Final = json.dumps(
    COMPLETION | {"choices": [CHOICE | {"message": {"role": "assistant", "content": PLACE}}]},
).encode()


def build_question(number: int) -> str:
    return f"question {number}"


def build_answer(number: int) -> str:
    return f"answer to question {number}"


class CountingConversation(Conversation):
    """One connection; the counts are shared by all."""

    def __init__(self, desk: Desk, calls: Counter[int]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(desk, loop.call_later)
        self._call_later = loop.call_later
        self._calls = calls

    def _handle(self, request: bytes) -> None:
        if request.startswith(b"GET /calls"):
            self._transport.write(build_reply(json.dumps(self._calls).encode()))
        elif (found := QUESTION.search(request)) is None:
            super()._handle(request)
        else:
            self._take(int(found[1]))

    def _take(self, number: int) -> None:
        self._calls[number] += 1
        self._desk.take()
        if self._desk.delay_seconds:
            self._call_later(self._desk.delay_seconds, self._tell, number)
        else:
            self._tell(number)

    def _tell(self, number: int) -> None:
        self._desk.in_flight -= 1
        self._desk.answered += 1
        if not self._transport.is_closing():
            self._transport.write(build_reply(TEMPLATE.replace(PLACE.encode(), build_answer(number).encode())))


async def serve(port: int) -> None:
    desk, calls = Desk(), Counter[int]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: CountingConversation(desk, calls), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
