"""Money for one chain of calls, handed from call to call: A asks B, B asks C, and all spend from the same purse."""

import threading
from decimal import Decimal, InvalidOperation

from shared.errors import InputError, LLMBudgetExceededError

ACCOUNT = "call"


class BudgetTracker:
    """Safe to share between threads and tasks. What is held for calls in flight counts as gone until it is settled."""

    def __init__(self, total: Decimal | float | str) -> None:
        """`total` in USD.

        Raises:
            InputError: it is no amount of money.
        """
        self.total = _read_amount(total)
        self._spent = Decimal(0)
        self._held = Decimal(0)
        self._lock = threading.Lock()

    @property
    def spent(self) -> Decimal:
        """USD, of calls that ended."""
        return self._spent

    def remaining(self) -> Decimal:
        """USD that a further call may cost; below zero when calls cost more than was held for them."""
        with self._lock:
            return self.total - self._spent - self._held

    def reserve(self, usd: Decimal) -> None:
        """Hold money before a call.

        Raises:
            LLMBudgetExceededError: there is not so much left.
        """
        with self._lock:
            if self._spent + self._held + usd > self.total:
                raise LLMBudgetExceededError(ACCOUNT, self.total, resets_at=None)
            self._held += usd

    def settle(self, held_usd: Decimal, spent_usd: Decimal) -> None:
        """The call that `held_usd` was held for ended, and cost `spent_usd`."""
        with self._lock:
            self._held -= held_usd
            self._spent += spent_usd


def _read_amount(total: Decimal | float | str) -> Decimal:
    try:
        # By its digits: 0.1 as a float is a little more than what was meant.
        amount = Decimal(str(total))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise InputError("budget_tracker", f"its total is '{total}'", "give an amount in USD, such as 0.50")
    return amount
