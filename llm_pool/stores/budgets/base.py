"""The seam between the budget middleware and where the money is counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol

FOR_EVER = 0
"""The day of accounts that never reset."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose money, and how much of it there is each day of UTC."""

    name: str
    """`day`, `tenant:ID`, `key:ID`, or that of a purse."""
    limit_usd: Decimal
    alert_usd: Decimal
    """Spending as much is told once a day."""
    resets: bool = True
    """Each day; else what is spent stays spent."""

    def choose_day(self, today: int) -> int:
        """Where it is counted, in days since 1970."""
        return today if self.resets else FOR_EVER


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one call, of each of its accounts."""

    id: str
    accounts: Sequence[Account]
    usd: Decimal
    day: int
    """When it was reserved, in days since 1970: it is settled to that day, however long the call takes."""


@dataclass(frozen=True, slots=True)
class Full:
    """Nothing was set aside, of any account."""

    account: Account
    """The first that had too little left."""
    resets_at: datetime
    retry_after_seconds: float
    """Until then, by the store's own clock."""


@dataclass(frozen=True, slots=True)
class AlertDue:
    """An account reached its alert; this is told to one of the whole fleet, once a day."""

    account: Account
    spent_usd: Decimal
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class Spending:
    """One account's day so far."""

    spent_usd: Decimal
    held_usd: Decimal
    resets_at: datetime


class BudgetStore(Protocol):
    """Counts money. What cannot be reached raises `LLMStoreUnavailableError`."""

    may_wait: bool
    """False: every step is done at once, so that no cancellation comes in between."""

    async def reserve(self, accounts: Sequence[Account], usd: Decimal, lease_seconds: float) -> Hold | Full:
        """Set `usd` aside of every account, or of none; for `lease_seconds`, should its worker die."""

    async def settle(self, hold: Hold, spent_usd: Decimal) -> Sequence[AlertDue]:
        """The call ended: what was held comes back, what it cost is spent, also when its lease ran out meanwhile.

        A second time for the same hold does nothing, so that it may be asked again when no answer came.
        """

    async def release(self, hold: Hold) -> None:
        """The call was never made."""

    async def read(self, account_name: str, *, resets: bool = True) -> Spending:
        """Of today, or of all days where it does not reset."""

    async def aclose(self) -> None:
        """What cancelled calls give back arrives first."""


def find_day(moment: datetime) -> int:
    return (moment - _EPOCH).days


def find_reset(day: int) -> datetime:
    """The end of that day."""
    return _EPOCH + timedelta(days=day + 1)
