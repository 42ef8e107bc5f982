"""What is decided once, before the first call: which catalogue holds here and now."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from llm_pool.catalog import Catalog, Deployment, LeftOut, ModelGroup
from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, Lookup, load_catalog
from shared.errors import ConfigurationError

log = structlog.get_logger()

PROBE_SECONDS = 0.5
_HERE = ("localhost", "0.0.0.0")  # noqa: S104 - compared, not listened at
_USUAL_PORTS = {"": "11434", "http": "80", "https": "443"}
MOCK_DEPLOYMENT = Deployment(name="mock", provider="mock", model="mock")


async def choose_catalog(path: Path | None, lookup: Lookup, allow_mock: bool) -> Catalog:
    """The file at `path`, or the shipped one, less what cannot be reached from here.

    Raises:
        ConfigurationError: the file is wrong, or leaves nobody to call and `allow_mock` is false.
    """
    catalog = await leave_out_unusable(load_catalog(path or DEFAULT_CATALOG, lookup))
    for entry in catalog.left_out:
        _tell(entry)
    if not catalog.deployments:
        return _stand_in(catalog, allow_mock)
    for name in catalog.group_names:
        if not _can_answer(catalog, name):
            log.warning("group_without_deployment", model_group=name)
    return catalog


async def leave_out_unusable(catalog: Catalog) -> Catalog:
    """Less what stands there twice, and where nothing listens, as seen from this machine."""
    single = catalog.without(_find_doubled(catalog))
    return single.without(await _find_unreachable(single))


def _tell(entry: LeftOut) -> None:
    is_unreachable = entry.missing_variable is None and entry.same_as is None
    reasons = {"missing_variable": entry.missing_variable, "same_as": entry.same_as, "unreachable": is_unreachable}
    log.info("deployment_left_out", deployment=entry.deployment, **{key: why for key, why in reasons.items() if why})


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
    return any(group.deployments for group in catalog.walk(name))


def _find_doubled(catalog: Catalog) -> list[LeftOut]:
    """Whoever points OLLAMA_HOST at this machine has one server there, not two."""
    asked = {_name_server(d): d.name for d in catalog.deployments if not d.only_if_reachable}
    found = [LeftOut(d.name, same_as=asked.get(_name_server(d))) for d in catalog.deployments if d.only_if_reachable]
    return [entry for entry in found if entry.same_as is not None]


def _name_server(deployment: Deployment) -> tuple[str, str, str]:
    """Addresses of this machine are one; OLLAMA_HOST may leave out the scheme, and then the port too."""
    named = (deployment.base_url or "").rstrip("/")
    address = urlsplit(named if "://" in named else f"//{named}")
    host = "127.0.0.1" if address.hostname in _HERE else address.hostname
    port = address.netloc.rpartition(":")[2] if ":" in address.netloc else _USUAL_PORTS.get(address.scheme)
    return deployment.provider, deployment.model, f"{host}:{port}{address.path}"


async def _find_unreachable(catalog: Catalog) -> list[LeftOut]:
    probed = [deployment for deployment in catalog.deployments if deployment.only_if_reachable]
    reached = await asyncio.gather(*(_is_reachable(deployment) for deployment in probed))
    return [LeftOut(deployment.name) for deployment, is_there in zip(probed, reached, strict=True) if not is_there]


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
