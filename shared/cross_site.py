"""A web page must not ask in the name of who looks at it: our services listen on the loopback without credentials."""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY = json.dumps(
    {
        "error": {
            "field": "Origin",
            "problem": "a page of another site asks",
            "remedy": "ask from a program, or from a page that is served here",
        }
    }
).encode()


class RefuseCrossSite:
    """Answers 403 to what a browser sends for a page of another origin; programs send no such header."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_cross_site(scope["headers"]):
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": _BODY})


def is_cross_site(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Browsers name the page's origin with every request that could do harm, and let no page forge it."""
    named = dict(headers)
    origin = named.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != named.get(b"host")
