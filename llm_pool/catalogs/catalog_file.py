"""Reads a catalogue from YAML, so that every mistake in it stops the start with one sentence that names the place."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import structlog

from llm_pool.catalog import Catalog, Deployment, LeftOut, Limits, ModelGroup, Price
from llm_pool.catalogs.catalog_shapes import (
    FREE,
    BudgetEntry,
    CacheEntry,
    CooldownEntry,
    DeploymentEntry,
    FileEntry,
    GroupEntry,
    LimitsEntry,
    Lookup,
    PriceEntry,
    QuotaEntry,
    as_fields,
    check,
    fill_in,
    fill_in_or_refuse,
)
from llm_pool.catalogs.litellm_file import is_litellm, translate
from llm_pool.policies import BudgetPolicy, CachePolicy, CooldownPolicy, Policies, QuotaPolicy
from llm_pool.providers.registry import PROVIDERS
from llm_pool.yaml_file import read_yaml
from shared.errors import ConfigurationError

__all__ = ["DEFAULT_CATALOG", "Lookup", "load_catalog"]

log = structlog.get_logger()

DEFAULT_CATALOG = Path(__file__).with_name("default_catalog.yaml")


def load_catalog(path: Path, lookup: Lookup) -> Catalog:
    """A file of ours, or a LiteLLM `config.yaml`.

    Deployments whose variables are not set are left out; their groups remain, so no key is needed to know those.

    Raises:
        ConfigurationError: naming the file, the key, and what to do.
    """
    try:
        document = read_yaml(path, "set LLMYARD_CONFIG to a catalogue, or unset it")
        return _build_catalog(_import_litellm(document, lookup) if is_litellm(document) else document, lookup)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _import_litellm(document: object, lookup: Lookup) -> object:
    imported = translate(document, lookup)
    for ignored in imported.ignored:
        log.info("litellm_key_ignored", key=ignored.key, reason=ignored.reason)
    return imported.document


def _build_catalog(document: object, lookup: Lookup) -> Catalog:
    entries = check(FileEntry, document, at="")
    deployments: dict[str, Deployment] = {}
    left_out: list[LeftOut] = []
    for index, raw in enumerate(entries.deployments):
        deployment, missing = _build_deployment(raw, lookup, at=f"deployments.{index}")
        if deployment.name in deployments:
            raise ConfigurationError(f"`deployments.{index}.name` is '{deployment.name}' again: give it another name.")
        deployments[deployment.name] = deployment
        if missing is not None:
            left_out.append(LeftOut(deployment.name, missing))
    absent = {entry.deployment for entry in left_out}
    groups = {name: _build_group(name, raw, lookup, deployments, absent) for name, raw in entries.groups.items()}
    return Catalog(groups, tuple(left_out), _build_policies(entries, lookup))


def _build_deployment(raw: object, lookup: Lookup, at: str) -> tuple[Deployment, str | None]:
    """With the first variable it lacks; an entry is checked whole even then, so that a mistake shows without keys."""
    missing: list[str] = []
    entry = check(DeploymentEntry, fill_in(raw, lookup, missing), at)
    if entry.provider not in PROVIDERS:
        known = ", ".join(sorted(PROVIDERS))
        raise ConfigurationError(f"`{at}.provider` is '{entry.provider}', which is unknown: use one of {known}.")
    if entry.only_if_reachable and entry.base_url is None:
        raise ConfigurationError(f"`{at}.only_if_reachable` has nothing to reach: set `{at}.base_url`.")
    limits = Limits(**as_fields(check(LimitsEntry, entry.limits, f"{at}.limits")))
    price = _build_price(entry.price, f"{at}.price")
    deployment = Deployment(**{**as_fields(entry), "limits": limits, "price": price})
    return deployment, missing[0] if missing else None


def _build_price(raw: object, at: str) -> Price | None:
    if raw is None:
        return None
    if raw == FREE:
        return Price(Decimal(0), Decimal(0))
    if not isinstance(raw, Mapping):
        keys = ", ".join(PriceEntry.model_fields)
        raise ConfigurationError(f"`{at}` cannot be used: write '{FREE}', or the keys {keys}.")
    return Price(**as_fields(check(PriceEntry, raw, at)))


def _build_group(
    name: str, raw: object, lookup: Lookup, deployments: Mapping[str, Deployment], absent: set[str]
) -> ModelGroup:
    at = f"groups.{name}"
    entry = check(GroupEntry, fill_in_or_refuse(raw, lookup, at), at)
    for deployment in entry.deployments:
        if deployment not in deployments:
            raise ConfigurationError(
                f"`{at}.deployments` names '{deployment}', which is no deployment: use one of {', '.join(deployments)}."
            )
    usable = tuple(deployments[deployment] for deployment in entry.deployments if deployment not in absent)
    return replace(ModelGroup(name, ()), **{**as_fields(entry), "deployments": usable})


def _build_policies(entries: FileEntry, lookup: Lookup) -> Policies:
    def section(name: str) -> object:
        return fill_in_or_refuse(getattr(entries, name), lookup, name)

    cooldown = CooldownPolicy(**as_fields(check(CooldownEntry, section("cooldown"), "cooldown")))
    if cooldown.longest_seconds < cooldown.first_seconds:
        raise ConfigurationError(
            f"`cooldown.longest_seconds` is {cooldown.longest_seconds:g}, which is less than `cooldown.first_seconds` "
            f"({cooldown.first_seconds:g}): raise it."
        )
    return Policies(
        CachePolicy(**as_fields(check(CacheEntry, section("cache"), "cache"))),
        BudgetPolicy(**as_fields(check(BudgetEntry, section("budget"), "budget"))),
        cooldown,
        QuotaPolicy(**as_fields(check(QuotaEntry, section("quota"), "quota"))),
    )
