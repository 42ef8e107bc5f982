"""What is decided once, before the first call: which catalogue holds here and now."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.catalog_file import DEFAULT_CATALOG, Lookup, load_catalog
from shared.errors import ConfigurationError

log = structlog.get_logger()

PROBE_SECONDS = 0.5
MOCK_DEPLOYMENT = Deployment(name="mock", provider="mock", model="mock")


async def choose_catalog(path: Path | None, lookup: Lookup, allow_mock: bool) -> Catalog:
    """The file at `path`, or the shipped one, less what cannot be reached from here.

    Raises:
        ConfigurationError: the file is wrong, or leaves nobody to call and `allow_mock` is false.
    """
    configured = load_catalog(path or DEFAULT_CATALOG, lookup)
    for entry in configured.left_out:
        log.info("deployment_left_out", deployment=entry.deployment, missing_variable=entry.missing_variable)
    catalog = configured.without(await _find_unreachable(configured))
    if not catalog.deployments:
        return _stand_in(catalog, allow_mock)
    for name in catalog.group_names:
        if not _can_answer(catalog, name):
            log.warning("group_without_deployment", model_group=name)
    return catalog


def build_mock_catalog(group_names: tuple[str, ...]) -> Catalog:
    """The same names to ask for, each answered by the mock provider."""
    return Catalog({name: ModelGroup(name, (MOCK_DEPLOYMENT,)) for name in group_names})


def _stand_in(catalog: Catalog, allow_mock: bool) -> Catalog:
    if not allow_mock:
        variables = dict.fromkeys(entry.missing_variable for entry in catalog.left_out if entry.missing_variable)
        choices = " or ".join((*variables, "LLMYARD_CONFIG"))
        raise ConfigurationError(f"No model provider is configured or in reach: set {choices}.")
    log.warning("mock_provider_stands_in", reason="no model provider is configured or in reach")
    return build_mock_catalog(catalog.group_names)


def _can_answer(catalog: Catalog, name: str) -> bool:
    group = catalog.get_group(name)
    return bool(group.deployments) or any(_can_answer(catalog, fallback) for fallback in group.fallbacks)


async def _find_unreachable(catalog: Catalog) -> list[str]:
    probed = [deployment for deployment in catalog.deployments if deployment.only_if_reachable]
    reached = await asyncio.gather(*(_is_reachable(deployment) for deployment in probed))
    missing = [deployment.name for deployment, is_there in zip(probed, reached, strict=True) if not is_there]
    for name in missing:
        log.info("deployment_left_out", deployment=name, unreachable=True)
    return missing


async def _is_reachable(deployment: Deployment) -> bool:
    address = urlsplit(deployment.base_url or "")
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(address.hostname, port)
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return True
