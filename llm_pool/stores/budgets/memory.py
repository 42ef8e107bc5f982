"""Budgets of one process. Nothing here waits, so no call of the loop ever stands between a check and its entry."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from math import inf

from llm_pool.stores.budgets.base import FOR_EVER, Account, AlertDue, Full, Hold, Spending, find_day, find_reset
from shared.clock import Clock


@dataclass(slots=True)
class _Entry:
    """One account on one day."""

    spent_usd: Decimal = Decimal(0)
    held_usd: Decimal = Decimal(0)
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class _Lease:
    hold: Hold
    expires_at: float
    """By `Clock.monotonic`."""


class MemoryBudgetStore:
    """Knows today, and yesterday for the calls that began in it."""

    may_wait = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = count()
        self._days: dict[int, dict[str, _Entry]] = {}
        self._leases: dict[str, _Lease] = {}
        self._none_expires_before = inf

    async def reserve(self, accounts: Sequence[Account], usd: Decimal, lease_seconds: float) -> Hold | Full:
        """See `BudgetStore`."""
        day = self._enter_day()
        for account in accounts:
            entry = self._get_entry(account.choose_day(day), account.name)
            if entry.spent_usd + entry.held_usd + usd > account.limit_usd:
                resets_at = find_reset(day)
                return Full(account, resets_at, (resets_at - self._clock.now()).total_seconds())
        hold = Hold(str(next(self._numbers)), tuple(accounts), usd, day)
        self._lease(hold, self._clock.monotonic() + lease_seconds)
        return hold

    async def settle(self, hold: Hold, spent_usd: Decimal) -> Sequence[AlertDue]:
        """See `BudgetStore`."""
        self._free(hold.id)
        days = [(account.choose_day(hold.day), account) for account in hold.accounts]
        return tuple(due for day, account in days if (due := self._spend(day, account, spent_usd)))

    async def release(self, hold: Hold) -> None:
        """See `BudgetStore`."""
        self._free(hold.id)

    async def read(self, account_name: str, *, resets: bool = True) -> Spending:
        """See `BudgetStore`."""
        day = self._enter_day()
        entry = self._get_entry(day if resets else FOR_EVER, account_name)
        return Spending(entry.spent_usd, entry.held_usd, find_reset(day))

    async def aclose(self) -> None:
        """Nothing is on its way."""

    def _enter_day(self) -> int:
        """Today; on the way, holds that ran out come back and old days are forgotten."""
        if self._clock.monotonic() >= self._none_expires_before:
            self._free_expired()
        day = find_day(self._clock.now())
        if day not in self._days:
            self._days = {known: kept for known, kept in self._days.items() if known >= day - 1 or known == FOR_EVER}
            self._days[day] = {}
        return day

    def _get_entry(self, day: int, account_name: str) -> _Entry:
        entries = self._days.get(day)
        if entries is None:
            entries = self._days[day] = {}
        entry = entries.get(account_name)
        if entry is None:
            entry = entries[account_name] = _Entry()
        return entry

    def _lease(self, hold: Hold, expires_at: float) -> None:
        self._leases[hold.id] = _Lease(hold, expires_at)
        self._none_expires_before = min(self._none_expires_before, expires_at)
        for account in hold.accounts:
            self._get_entry(account.choose_day(hold.day), account.name).held_usd += hold.usd

    def _free_expired(self) -> None:
        now = self._clock.monotonic()
        for lease in [lease for lease in self._leases.values() if lease.expires_at <= now]:
            self._free(lease.hold.id)
        self._none_expires_before = min((lease.expires_at for lease in self._leases.values()), default=inf)

    def _free(self, hold_id: str) -> None:
        lease = self._leases.pop(hold_id, None)
        if lease is not None:
            for account in lease.hold.accounts:
                self._get_entry(account.choose_day(lease.hold.day), account.name).held_usd -= lease.hold.usd

    def _spend(self, day: int, account: Account, usd: Decimal) -> AlertDue | None:
        entry = self._get_entry(day, account.name)
        entry.spent_usd += usd
        if entry.is_told or entry.spent_usd < account.alert_usd:
            return None
        entry.is_told = True
        return AlertDue(account, entry.spent_usd, find_reset(day))
