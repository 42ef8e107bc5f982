"""Request ring: money is set aside before a call, for all its attempts and fallbacks, and settled to what it cost."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from decimal import Decimal

import structlog

from llm_pool.call import Call, RequestHandler
from llm_pool.catalog import Catalog, Deployment
from llm_pool.money.prices import Prices
from llm_pool.money.settlement import Settlement
from llm_pool.policies import BudgetPolicy
from llm_pool.stores.budgets.base import Account, BudgetStore, Full, Hold
from llm_pool.types import Capability, Purse, Request, Response
from shared.attempts import Attempt
from shared.clock import Clock
from shared.errors import (
    ConfigurationError,
    InputError,
    LLMBudgetExceededError,
    LLMNoPermitError,
    LLMStreamBrokenError,
)

log = structlog.get_logger()

LEASE_SLACK_SECONDS = 300.0
"""Money is held so long beyond a call's deadline, as a stream may go on after it, before its worker counts as dead."""

PURSE_LOOK_SECONDS = 0.25

_NOTHING = Decimal(0)
_NEVER_TOLD_USD = Decimal(10**6)
_REMEDY = "set the deployment's `price`, which is `free` where nothing is paid for its tokens"


class Budget:
    """Without caps and without the call's own tracker it does nothing at all; nor where every model is free."""

    def __init__(
        self,
        store: BudgetStore,
        policy: BudgetPolicy,
        prices: Prices,
        catalog: Catalog,
        clock: Clock,
        settlement: Settlement,
    ) -> None:
        """
        Raises:
            ConfigurationError: there are caps, and money could leave uncounted.
        """
        check_prices(policy, prices, catalog)
        self._store = store
        self._policy = policy
        self._prices = prices
        self._clock = clock
        self._catalog = catalog
        self._settlement = settlement
        self._priced: dict[tuple[str, Capability], Mapping[str, Deployment]] = {}
        self._has_caps = has_caps(policy)
        self._alert_at = Decimal(str(policy.alert_at))
        self._day = self._build_account("day", policy.daily_usd)

    def __call__(self, call: Call, proceed: RequestHandler) -> Awaitable[Response]:
        accounts = self._find_accounts(call.request)
        if call.config.budget_tracker is None and not accounts:
            return proceed(call)
        priced = self._get_priced(call.request.model, _find_kind(call))
        return self._ask_within(call, accounts, priced, proceed) if priced else proceed(call)

    async def _ask_within(
        self, call: Call, accounts: Sequence[Account], priced: Mapping[str, Deployment], proceed: RequestHandler
    ) -> Response:
        tracker, usd = call.config.budget_tracker, self._estimate(call, priced)
        if tracker is not None:
            tracker.reserve(usd)
        spent = _NOTHING
        try:
            hold = await self._hold(call, accounts, usd)
            try:
                return await proceed(call)
            finally:
                spent = self._sum_up(call, priced)
                if hold is not None:
                    await self._settlement.settle(hold, spent)
        finally:
            if tracker is not None:
                tracker.settle(usd, spent)

    def _find_accounts(self, request: Request) -> list[Account]:
        purse = [] if request.purse is None else [_build_purse(request.purse)]
        if not self._has_caps:
            return purse
        policy, accounts = self._policy, [self._day]
        if request.tenant_id is not None:
            cap = policy.tenants.get(request.tenant_id, policy.tenant_daily_usd)
            accounts.append(self._build_account(f"tenant:{request.tenant_id}", cap))
        if request.key_id is not None:
            accounts.append(self._build_account(f"key:{request.key_id}", policy.keys.get(request.key_id)))
        return [*purse, *(account for account in accounts if account is not None)]

    def _build_account(self, name: str, cap: Decimal | None) -> Account | None:
        return None if cap is None else Account(name, cap, cap * self._alert_at)

    def _get_priced(self, group_name: str, asks_for: Capability) -> Mapping[str, Deployment]:
        """Who may answer for the group, its fallbacks included, and is not known to be free."""
        found = self._priced.get((group_name, asks_for))
        if found is None:
            found = {
                deployment.name: deployment
                for group in self._catalog.walk(group_name)
                for deployment in group.deployments
                if deployment.may(asks_for) and not self._prices.is_free(deployment)
            }
            self._priced[group_name, asks_for] = found
        return found

    def _estimate(self, call: Call, priced: Mapping[str, Deployment]) -> Decimal:
        """What the dearest who may answer could cost."""
        return max(self._bound(call, deployment) for deployment in priced.values())

    def _bound(self, call: Call, deployment: Deployment) -> Decimal:
        estimate = call.estimate
        completion_tokens = 0 if _find_kind(call) == "embed" else estimate.bound_completion(deployment)
        usd = self._prices.bound(deployment, estimate.prompt_tokens, completion_tokens)
        if usd is None:
            # With caps alone this is a model that is priced for embeddings only, and was asked to write.
            field = "model" if call.config.budget_tracker is None else "budget_tracker"
            problem = f"the price of deployment '{deployment.name}', which may answer, is not known"
            raise InputError(field, problem, _REMEDY)
        return usd

    async def _hold(self, call: Call, accounts: Sequence[Account], usd: Decimal) -> Hold | None:
        if not accounts:
            return None
        lease_seconds = call.deadline - self._clock.monotonic() + LEASE_SLACK_SECONDS
        held = await self._store.reserve(accounts, usd, lease_seconds)
        while isinstance(held, Full) and await self._may_come_back(held.account, usd, call):
            await asyncio.sleep(PURSE_LOOK_SECONDS)
            held = await self._store.reserve(accounts, usd, lease_seconds)
        if isinstance(held, Full):
            raise LLMBudgetExceededError(
                held.account.name,
                held.account.limit_usd,
                held.resets_at if held.account.resets else None,
                retry_after_seconds=held.retry_after_seconds,
            )
        return held

    async def _may_come_back(self, account: Account, usd: Decimal, call: Call) -> bool:
        """What others hold of a purse comes back for the most part, as answers are short; what is spent never does.

        Raises:
            LLMNoPermitError: that took as long as the call may.
        """
        if account.resets:
            return False
        if (await self._store.read(account.name, resets=False)).spent_usd + usd > account.limit_usd:
            return False
        if self._clock.monotonic() + PURSE_LOOK_SECONDS >= call.deadline:
            raise LLMNoPermitError(f"what is left of {account.name} is held by other calls")
        return True

    def _sum_up(self, call: Call, priced: Mapping[str, Deployment]) -> Decimal:
        return sum([self._charge(call, attempt, priced) for attempt in call.attempts], _NOTHING)

    def _charge(self, call: Call, attempt: Attempt, priced: Mapping[str, Deployment]) -> Decimal:
        """What somebody got is charged at its bound where its cost is not known: nothing is free for being unknown."""
        if attempt.cost_usd is not None:
            return attempt.cost_usd
        if attempt.deployment not in priced or not _delivered(call, attempt):
            return _NOTHING
        usd = self._bound(call, priced[attempt.deployment])
        log.info("cost_assumed", deployment=attempt.deployment, usd=str(usd), request_id=str(call.request_id))
        return usd


def has_caps(policy: BudgetPolicy) -> bool:
    caps = (policy.daily_usd, policy.tenant_daily_usd)
    return bool(policy.tenants or policy.keys) or any(cap is not None for cap in caps)


def check_prices(policy: BudgetPolicy, prices: Prices, catalog: Catalog) -> None:
    """
    Raises:
        ConfigurationError: there are caps, and a deployment whose price nobody knows.
    """
    if not has_caps(policy):
        return
    for deployment in catalog.deployments:
        if prices.find(deployment) is None:
            raise ConfigurationError(
                f"Budgets have caps, and the price of deployment '{deployment.name}' ({deployment.provider}, "
                f"{deployment.model}) is not known, so that its cost could not be counted: {_REMEDY}."
            )


def _build_purse(purse: Purse) -> Account:
    """Nobody is alerted: whoever set it is told what became of it."""
    return Account(purse.name, purse.limit_usd, _NEVER_TOLD_USD, resets=False)


def _find_kind(call: Call) -> Capability:
    return "embed" if "embed" in call.needs else "chat"


def _delivered(call: Call, attempt: Attempt) -> bool:
    """Text reached the caller, who may also have hung up in the middle of a stream."""
    if attempt.error_type == asyncio.CancelledError.__name__:
        return call.is_streamed
    return attempt.error_type in (None, LLMStreamBrokenError.__name__)
