"""Sees to it that what a call cost is written down, whatever becomes of the call and of the store meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from decimal import Decimal

import structlog

from llm_pool.money.alerts import Alert, AlertSink
from llm_pool.stores.budgets.base import BudgetStore, Hold
from shared.errors import LLMStoreUnavailableError

log = structlog.get_logger()

WAITS_SECONDS = (1.0, 4.0, 16.0)
"""Between the tries at a store that is away."""
CLOSING_SECONDS = 2.0


class Settlement:
    """Settles holds, and hands on the alerts that are due."""

    def __init__(
        self,
        store: BudgetStore,
        sinks: Sequence[AlertSink] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._sinks = sinks
        self._sleep = sleep
        self._under_way: set[asyncio.Future[None]] = set()

    async def settle(self, hold: Hold, spent_usd: Decimal) -> None:
        """Never raises for want of a store: the answer is there and paid for. Being cancelled does not stop it."""
        if self._store.may_wait:
            await asyncio.shield(self._keep(self._settle(hold, spent_usd)))
        else:
            await self._settle(hold, spent_usd)

    async def aclose(self) -> None:
        """What was spent is written down, if that is possible soon; alerts likewise are given."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                while self._under_way:
                    done, _ = await asyncio.wait(self._under_way)
                    self._under_way -= done
        for settling in tuple(self._under_way):
            settling.cancel()
        await asyncio.gather(*self._under_way, *(sink.aclose() for sink in self._sinks), return_exceptions=True)

    async def _settle(self, hold: Hold, spent_usd: Decimal) -> None:
        if not await self._try(hold, spent_usd):
            self._keep(self._settle_later(hold, spent_usd))

    async def _settle_later(self, hold: Hold, spent_usd: Decimal) -> None:
        is_settled = False
        try:
            for wait in WAITS_SECONDS:
                await self._sleep(wait)
                is_settled = await self._try(hold, spent_usd)
                if is_settled:
                    break
        finally:
            if not is_settled:
                log.error("spending_lost", usd=str(spent_usd), accounts=[account.name for account in hold.accounts])

    async def _try(self, hold: Hold, spent_usd: Decimal) -> bool:
        try:
            alerts_due = await self._store.settle(hold, spent_usd)
        except LLMStoreUnavailableError as error:
            log.warning("budget_not_settled", usd=str(spent_usd), problem=str(error))
            return False
        for due in alerts_due:
            for sink in self._sinks:
                sink.take(Alert(due.account.name, due.spent_usd, due.account.limit_usd, due.resets_at))
        return True

    def _keep(self, settling: Coroutine[None, None, None]) -> asyncio.Future[None]:
        """Nobody else holds on to a task that its caller gave up."""
        task = asyncio.ensure_future(settling)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task
