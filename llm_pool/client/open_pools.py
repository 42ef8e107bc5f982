"""The pools of one client. Each is opened inside the event loop that uses it, and closed when that loop ends."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from llm_pool.asking.asking import AskablePool

TEN_YEARS_SECONDS = 10 * 365 * 86_400.0

OpenPool = Callable[[], Awaitable[AskablePool]]


@dataclass(slots=True)
class _Opened:
    pools: dict[Hashable, asyncio.Future[AskablePool]] = field(default_factory=dict)
    keeper: asyncio.Task[None] | None = None


class OpenPools:
    """A script that calls `asyncio.run` twice has two loops: connections of the first are of no use in the second."""

    def __init__(self) -> None:
        self._opened: WeakKeyDictionary[asyncio.AbstractEventLoop, _Opened] = WeakKeyDictionary()

    async def get(self, key: Hashable, open_pool: OpenPool) -> AskablePool:
        """Opened by the first who asks for it; who comes meanwhile waits for the same one."""
        opened = self._opened.setdefault(asyncio.get_running_loop(), _Opened())
        if opened.keeper is None or opened.keeper.done():
            opened.keeper = asyncio.create_task(_close_in_the_end(opened))
        if key not in opened.pools or _has_failed(opened.pools[key]):
            opened.pools[key] = asyncio.ensure_future(open_pool())
        return await asyncio.shield(opened.pools[key])

    def list_open(self) -> tuple[AskablePool, ...]:
        """Those of this loop."""
        opened = self._opened.get(asyncio.get_running_loop())
        openings = () if opened is None else opened.pools.values()
        return tuple(opening.result() for opening in openings if opening.done() and not _has_failed(opening))

    async def aclose(self) -> None:
        """Those of this loop; the next call opens new ones."""
        opened = self._opened.pop(asyncio.get_running_loop(), None)
        if opened is not None and opened.keeper is not None:
            opened.keeper.cancel()
            await asyncio.gather(opened.keeper, return_exceptions=True)


def _has_failed(opening: asyncio.Future[AskablePool]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


async def _close_in_the_end(opened: _Opened) -> None:
    """`asyncio.run` cancels what still runs in its loop, and waits for it."""
    try:
        # A loop holds on to who sleeps, even when nobody holds on to the client any more.
        await asyncio.sleep(TEN_YEARS_SECONDS)
    except asyncio.CancelledError:
        found = await asyncio.gather(*opened.pools.values(), return_exceptions=True)
        await asyncio.gather(*(pool.aclose() for pool in found if not isinstance(pool, BaseException)))
        raise
