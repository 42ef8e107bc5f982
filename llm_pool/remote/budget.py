"""Lets a pool service spend from a purse that lives in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from weakref import WeakKeyDictionary

from llm_pool.money.budget_tracker import ACCOUNT, BudgetTracker
from llm_pool.types import CompletionResponse, EmbeddingResponse
from shared.errors import InputError, LLMBudgetExceededError, LLMConnectionError, LLMError

NOTHING = Decimal(0)


@dataclass(slots=True)
class Purse:
    """What one request may spend, and what it did."""

    usd: Decimal | None = None
    """None is no bound of the caller's."""
    spent_usd: Decimal = NOTHING

    def note(self, response: CompletionResponse | EmbeddingResponse | None) -> None:
        """What is not known is taken to have cost all that was held."""
        if response is not None and self.usd is not None:
            self.spent_usd = self.usd if response.cost_usd is None else response.cost_usd


class RemoteBudgets:
    """The service alone knows the prices, so each request is given all that is left, and gives back what remains.

    Requests that share a tracker therefore go one after another; elsewhere the tracker is full meanwhile.
    """

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[BudgetTracker, asyncio.Lock] = WeakKeyDictionary()

    @asynccontextmanager
    async def hold(self, tracker: BudgetTracker | None) -> AsyncIterator[Purse]:
        """
        Raises:
            LLMBudgetExceededError: nothing is left.
        """
        if tracker is None:
            yield Purse()
            return
        async with self._turns.setdefault(tracker, asyncio.Lock()):
            held_usd = max(NOTHING, tracker.remaining())
            tracker.reserve(held_usd)
            # Whoever leaves a stream or is cancelled never learns what it cost.
            purse = Purse(held_usd, spent_usd=held_usd)
            try:
                yield purse
            except (LLMError, InputError) as error:
                purse.spent_usd = _count_spending(error, held_usd)
                if isinstance(error, LLMBudgetExceededError) and error.account == ACCOUNT:
                    raise _as_callers(error, tracker) from error
                raise
            finally:
                tracker.settle(held_usd, purse.spent_usd)


def _count_spending(error: LLMError | InputError, held_usd: Decimal) -> Decimal:
    """As the service says. Of what got lost on its way nobody knows, unless it was never sent."""
    if isinstance(error, InputError):
        return NOTHING
    if error.spent_usd is not None:
        return error.spent_usd
    cause = error.__cause__
    return NOTHING if isinstance(cause, LLMConnectionError) and not cause.was_sent else held_usd


def _as_callers(error: LLMBudgetExceededError, tracker: BudgetTracker) -> LLMBudgetExceededError:
    """The service knows what was left of the purse only, not how large it was."""
    return LLMBudgetExceededError(ACCOUNT, tracker.total, error.resets_at, attempts=error.attempts)
