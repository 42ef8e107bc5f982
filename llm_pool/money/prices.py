"""What a call costs: as the catalogue says, else as its seller asks in public. Unknown is unknown, never nothing."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from pkgutil import resolve_name
from typing import Protocol, cast

import structlog

from llm_pool.catalog import Deployment, Price
from llm_pool.money.tariff import FREE, Tariff, build_tariff
from shared.attempts import Usage
from shared.clock import Clock

log = structlog.get_logger()

_SELLERS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "claude_code": "anthropic",
    "gemini": "google",
    "groq": "groq",
    "litellm": "litellm",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
}
"""Our names of providers, and what the public prices call them."""
_TOLD_BY_ADDRESS = "openai_compatible"
_COST_NOTHING = frozenset({"mock"})
_FREE_TARIFF = build_tariff(FREE)


class PriceList(Protocol):
    """Where public prices are looked up."""

    def find(self, seller: str | None, base_url: str | None, model: str, at: datetime) -> Tariff | None:
        """None: nobody knows."""


class Prices:
    """The price of each deployment. A model that runs at home has one only where the catalogue gives it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: set[tuple[str, str]] = set()
        self._configured: dict[str, tuple[Price, Tariff]] = {}
        """By deployment: to hash a price takes as long as to reckon with it."""

    def find(self, deployment: Deployment) -> Price | None:
        """For short prompts, where it depends on their length."""
        tariff = self._find_tariff(deployment, deployment.model)
        return None if tariff is None else tariff.choose(0)

    def is_free(self, deployment: Deployment) -> bool:
        """It is known to cost nothing."""
        tariff = self._find_tariff(deployment, deployment.model)
        return tariff is not None and tariff.is_free

    def cost(self, deployment: Deployment, usage: Usage | None, answered_by: str | None = None) -> Decimal | None:
        """USD of one attempt; None where usage or price is not known.

        `answered_by` is the model as the provider named it: a name that routes, as OpenRouter has them, is answered
        by models of different prices.
        """
        tariff = self._find_tariff(deployment, answered_by or deployment.model)
        tariff = tariff or self._find_tariff(deployment, deployment.model)
        if tariff is None:
            self._tell_unknown(deployment)
            return None
        return None if usage is None else tariff.cost(usage)

    def bound(self, deployment: Deployment, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """USD that one attempt of so many tokens costs at most; None where the price is not known."""
        tariff = self._find_tariff(deployment, deployment.model)
        return None if tariff is None else tariff.bound(prompt_tokens, completion_tokens)

    def load(self, deployments: Iterable[Deployment]) -> None:
        """Look all of them up now, so that no call waits until the public prices are loaded."""
        for deployment in deployments:
            self.find(deployment)

    def _find_tariff(self, deployment: Deployment, model: str) -> Tariff | None:
        if deployment.price is not None:
            return self._get_configured(deployment.name, deployment.price)
        if deployment.provider in _COST_NOTHING:
            return _FREE_TARIFF
        seller, base_url = _SELLERS.get(deployment.provider), None
        if deployment.provider == _TOLD_BY_ADDRESS and _is_public(deployment.base_url):
            base_url = deployment.base_url
        if seller is None and base_url is None:
            return None
        return self._public.find(seller, base_url, model, self._clock.now())

    def _get_configured(self, deployment_name: str, price: Price) -> Tariff:
        known = self._configured.get(deployment_name)
        if known is None or known[0] is not price:
            known = self._configured[deployment_name] = price, build_tariff(price)
        return known[1]

    @cached_property
    def _public(self) -> PriceList:
        return cast(PriceList, resolve_name("llm_pool.money.public_prices:PublicPrices")())

    def _tell_unknown(self, deployment: Deployment) -> None:
        name = (deployment.provider, deployment.model)
        if name not in self._told:
            self._told.add(name)
            log.info("price_unknown", provider=deployment.provider, model=deployment.model)


def _is_public(base_url: str | None) -> bool:
    """Nobody sells models over plain HTTP: such an address is at home, and the public prices need not be loaded."""
    return base_url is not None and base_url.startswith("https://")
