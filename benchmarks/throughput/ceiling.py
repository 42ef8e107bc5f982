"""What the model server can answer at most: canned requests from one process, 64 in flight.

    python ceiling.py PORT CALLS        prints calls a second

It shares the cores with the server, so the server alone could do more.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from functools import partial

IN_FLIGHT = 64
BODY = b'{"model":"bench-model","messages":[{"role":"user","content":"question"}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


class Caller(asyncio.Protocol):
    """Asks again as soon as it has been answered, while there are calls left."""

    def __init__(self, calls: Iterator[int], done: "asyncio.Future[None]") -> None:
        self._calls = calls
        self._done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "TCP gives one"
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200"), data
        self._ask()

    def _ask(self) -> None:
        if next(self._calls, None) is not None:
            self._transport.write(REQUEST)
        elif not self._done.done():
            self._done.set_result(None)


async def measure(port: int, calls: int) -> float:
    loop = asyncio.get_running_loop()
    numbers = iter(range(calls))
    callers = [loop.create_future() for _ in range(IN_FLIGHT)]
    started = time.perf_counter()
    for done in callers:
        await loop.create_connection(partial(Caller, numbers, done), "127.0.0.1", port)
    await asyncio.gather(*callers)
    return calls / (time.perf_counter() - started)


if __name__ == "__main__":
    print(asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]))))
