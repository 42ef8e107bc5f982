"""The models named in the catalogue as shipped are still sold; one that is withdrawn warns and breaks nothing."""

import warnings

import pytest

from llm_pool.catalog import Deployment
from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, load_catalog
from llm_pool.money.prices import Prices
from shared.clock import SystemClock

SELLERS = {"anthropic", "openai", "groq", "together", "openrouter", "gemini"}


def warn_of_unpriced(deployments: list[Deployment]) -> None:
    prices = Prices(SystemClock())
    for deployment in deployments:
        if prices.find(deployment) is None:
            warnings.warn(f"{deployment.provider} lists no price of {deployment.model}: is it withdrawn?", stacklevel=2)


def find_sold() -> list[Deployment]:
    catalog = load_catalog(DEFAULT_CATALOG, lambda name: f"a value of {name}")
    return [deployment for deployment in catalog.deployments if deployment.provider in SELLERS]


def test_every_shipped_model_that_is_sold_has_a_public_price() -> None:
    sold = find_sold()
    assert {deployment.provider for deployment in sold} >= {"anthropic", "openai"}
    warn_of_unpriced(sold)


def test_a_model_that_disappeared_would_be_noticed() -> None:
    with pytest.warns(UserWarning, match="openai lists no price of gpt-0"):
        warn_of_unpriced([*find_sold(), Deployment("a", "openai", "gpt-0")])
