"""A model server that answers at once, with the headers of a quota, in a process of its own."""

import json
import sys

from aiohttp import web

USAGE = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
ANSWER = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}
HEADERS = {
    "x-ratelimit-limit-requests": "1000000",
    "x-ratelimit-remaining-requests": "999999",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-limit-tokens": "100000000",
    "x-ratelimit-remaining-tokens": "99999900",
    "x-ratelimit-reset-tokens": "1ms",
}
BODY = json.dumps(ANSWER).encode()


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=BODY, content_type="application/json", headers=HEADERS)


def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
