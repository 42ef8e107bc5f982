"""A provider of each kind on a bench: asked through its seam, answering, hanging or failing as a test wants it."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from llm_pool.catalog import Deployment
from llm_pool.providers.base import Provider, ProviderFactory
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from llm_pool.providers.sync_adapter import adapt
from tests.fakes.claude_cli import RESULT, install_claude_cli
from tests.fakes.dialects import DIALECTS, OPENAI, Dialect
from tests.fakes.ollama_dialect import serve_ollama
from tests.fakes.provider_server import answer_as_asked, never_answer, send_bytes, serve

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-provider.md"
ANSWER = "fine by me"

Mode = Literal["answer", "hang", "fail"]
"""It says `ANSWER`, or `said: ` and what it was asked; it never answers; or it fails as if overloaded."""


@dataclass(frozen=True)
class Bench:
    """One provider in one mode."""

    provider: Provider
    list_asked: Callable[[], Sequence[object]]
    """What somebody was asked behind it."""
    echoes: bool = False
    nobody_behind: bool = False

    def count_asked(self) -> int:
        return len(self.list_asked())


OpenBench = Callable[[Path, Mode], AbstractAsyncContextManager[Bench]]


@asynccontextmanager
async def open_http(dialect: Dialect, _: Path, mode: Mode) -> AsyncIterator[Bench]:
    behaviours = {
        "answer": answer_as_asked(dialect, ANSWER),
        "hang": never_answer,
        "fail": send_bytes(b"no", status=500),
    }
    connections = Connections()
    async with serve(dialect) as server:
        server.behave = behaviours[mode]
        deployment = Deployment("one", dialect.provider, "m", server.base_url, "secret")
        yield Bench(PROVIDERS[dialect.provider](deployment, connections), lambda: server.received)
        await connections.aclose()


@asynccontextmanager
async def open_ollama(_: Path, mode: Mode) -> AsyncIterator[Bench]:
    connections = Connections()
    async with serve_ollama() as server:
        server.say = ANSWER
        server.status = 500 if mode == "fail" else 200
        server.thinks_for_ever = mode == "hang"
        provider = PROVIDERS["ollama"](Deployment("one", "ollama", server.models[0], server.base_url), connections)
        yield Bench(provider, lambda: server.received)
        await provider.aclose()
        await connections.aclose()


@asynccontextmanager
async def open_mock(_: Path, mode: Mode) -> AsyncIterator[Bench]:
    faults = {"answer": [], "hang": ["hang"], "fail": ["overloaded"]}
    deployment = Deployment("one", "mock", "m", options={"faults": faults[mode]})
    # Nobody stands behind it; its one fault shows a second call, which would be answered.
    yield Bench(PROVIDERS["mock"](deployment, Connections()), list, nobody_behind=True)


@asynccontextmanager
async def open_sync(_: Path, mode: Mode) -> AsyncIterator[Bench]:
    asked: list[str] = []
    released = threading.Event()

    def execute(prompt: str) -> str:
        asked.append(prompt)
        if mode == "fail":
            raise ConnectionError("gone")
        if mode == "hang":
            released.wait(30)
        return f"said: {prompt}"

    yield Bench(adapt(execute)(Deployment("one", "sync", "m"), Connections()), lambda: asked, echoes=True)
    released.set()


@asynccontextmanager
async def open_claude_code(home: Path, mode: Mode) -> AsyncIterator[Bench]:
    cli = install_claude_cli(home)
    pieces = [{"type": "text_delta", "text": text} for text in ("fine ", "by me")]
    told = [{"type": "stream_event", "event": {"type": "content_block_delta", "delta": piece}} for piece in pieces]
    plans: Mapping[Mode, Callable[[], None]] = {
        # Whole answers are read from the first object, streams from every line.
        "answer": partial(cli.plan, RESULT, streams=[*told, RESULT]),
        "hang": partial(cli.plan, sleeps=600),
        "fail": partial(cli.plan, {**RESULT, "is_error": True, "api_error_status": 529}, status=1),
    }
    plans[mode]()
    deployment = Deployment("one", "claude_code", "m", options={"command": cli.command})
    yield Bench(PROVIDERS["claude_code"](deployment, Connections()), cli.list_asked)


@asynccontextmanager
async def open_example(_: Path, mode: Mode) -> AsyncIterator[Bench]:
    """The class on the page, and a server that speaks the dialect of the house."""
    asked: list[Any] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        if mode == "hang":
            await asyncio.Event().wait()
        status = 503 if mode == "fail" else 200
        return web.json_response({"said": f"said: {asked[-1]['text']}"}, status=status)

    app = web.Application()
    app.router.add_post("/say", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
    host, port = runner.addresses[0][:2]
    connections = Connections()
    deployment = Deployment("one", "house", "house-1", f"http://{host}:{port}", "k")
    yield Bench(load_example()(deployment, connections), lambda: asked, echoes=True)
    await connections.aclose()
    await runner.cleanup()


def load_example() -> ProviderFactory:
    """The page's own code."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "house"}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["HouseProvider"]


BENCHES: Mapping[str, OpenBench] = {
    **{dialect.provider: partial(open_http, dialect) for dialect in DIALECTS},
    "mlx_server": partial(open_http, replace(OPENAI, provider="mlx_server")),
    "ollama": open_ollama,
    "mock": open_mock,
    "sync": open_sync,
    "claude_code": open_claude_code,
    "example": open_example,
}
"""What docs/writing-a-provider.md calls an entry."""
