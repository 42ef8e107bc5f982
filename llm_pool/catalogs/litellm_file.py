"""Reads a LiteLLM `config.yaml` as a catalogue of ours, so that whoever has one can come as they are.

Pure: it makes the document that would stand in an `llmyard.yaml`, and a list of what it could not take along. What
each key becomes is told in docs/coming-from-litellm.md.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from llm_pool.catalogs.catalog_shapes import Lookup, check, fill_in
from llm_pool.catalogs.litellm_deployments import Imported, build_deployment
from llm_pool.catalogs.litellm_fallbacks import build_groups
from llm_pool.catalogs.litellm_shapes import (
    Credential,
    Ignored,
    LitellmFile,
    ModelEntry,
    Params,
    Settings,
    list_extras,
    rewrite_variables,
)
from shared.errors import ConfigurationError

_CACHE_STORES = {"local": "memory", "redis": "redis", "disk": "disk"}
_HOTTEST = 2.0
"""No provider takes more: LiteLLM caches whatever the temperature."""


@dataclass(frozen=True, slots=True)
class LitellmImport:
    """What became of the file."""

    document: dict[str, object]
    """As it would stand in an `llmyard.yaml`."""
    ignored: list[Ignored] = field(default_factory=list)


def is_litellm(document: object) -> bool:
    return isinstance(document, Mapping) and "model_list" in document


def translate(document: object, lookup: Lookup) -> LitellmImport:
    """
    Raises:
        ConfigurationError: a mistake, or something that would mean another thing here; naming the place.
    """
    file = check(LitellmFile, rewrite_variables(document), at="")
    if file.include is not None:
        raise ConfigurationError("`include` names further files: put their `model_list` into this one.")
    lookup = _extend(lookup, file.environment_variables or {})
    settings, ignored = _merge_settings(file, lookup)
    imported: list[Imported] = []
    for index, raw in enumerate(file.model_list):
        entry, skipped = _import_entry(raw, file, lookup, settings, f"model_list.{index}", imported)
        imported += [entry] if entry is not None else []
        ignored += skipped
    if not imported:
        raise ConfigurationError("`model_list` has no model that can be used: name one without `*`.")
    groups, skipped = build_groups(imported, settings)
    ignored += [*skipped, *list_extras(file, "", "it concerns LiteLLM's own server")]
    built = {"deployments": [entry.entry for entry in _weigh(imported)], "groups": groups}
    return LitellmImport({**built, **_build_policies(settings, ignored)}, ignored)


def _extend(lookup: Lookup, variables: Mapping[str, object]) -> Lookup:
    """LiteLLM puts them into its environment, over what was there."""
    return lambda name: str(variables[name]) if variables.get(name) is not None else lookup(name)


def _merge_settings(file: LitellmFile, lookup: Lookup) -> tuple[Settings, list[Ignored]]:
    ignored: list[Ignored] = []
    given: dict[str, object] = {}
    for at, raw in (("litellm_settings", file.litellm_settings), ("router_settings", file.router_settings)):
        usable = dict(_drop_unset(raw or {}, at, lookup, ignored))
        checked = check(Settings, usable, at)
        ignored += list_extras(checked, at, "llmyard does it otherwise, or not at all")
        given |= {key: value for key, value in usable.items() if key in Settings.model_fields}
    settings = check(Settings, given, "router_settings")
    if settings.provider_budget_config is not None:
        raise ConfigurationError(
            "`router_settings.provider_budget_config` caps each provider, which llmyard does not: remove it, and cap "
            "all together by `litellm_settings.max_budget` with `budget_duration: 1d`."
        )
    return settings, ignored


def _drop_unset(
    raw: Mapping[str, object], at: str, lookup: Lookup, ignored: list[Ignored]
) -> Iterator[tuple[str, object]]:
    for key, value in raw.items():
        missing: list[str] = []
        filled = fill_in(value, lookup, missing)
        if missing:
            ignored.append(Ignored(f"{at}.{key}", f"{missing[0]} is not set"))
        elif filled is not None:
            yield key, _as_list(filled) if key.endswith("fallbacks") else filled


def _as_list(fallbacks: object) -> object:
    """Some write them as one mapping."""
    return [fallbacks] if isinstance(fallbacks, Mapping) else fallbacks


def _import_entry(
    raw: object, file: LitellmFile, lookup: Lookup, settings: Settings, at: str, known: Iterable[Imported]
) -> tuple[Imported | None, list[Ignored]]:
    entry = check(ModelEntry, fill_in(raw, lookup, []), at)
    limits = {"rpm": entry.rpm, "tpm": entry.tpm}
    params = {**settings.default_litellm_params, **limits, **entry.litellm_params}
    credential = _find_credential(params, file.credential_list, at)
    given = {key: value for key, value in {**credential, **params}.items() if value is not None}
    checked = check(Params, fill_in(given, lookup, []), f"{at}.litellm_params")
    taken = {str(other.entry["name"]) for other in known}
    imported, ignored = build_deployment(entry, checked, _choose_name(entry, taken), settings, at)
    if imported is None:
        return None, ignored
    return replace(imported, entry=fill_in(imported.entry, lookup, [])), ignored


def _find_credential(
    params: Mapping[str, object], credentials: tuple[Credential, ...], at: str
) -> Mapping[str, object]:
    name = params.get("litellm_credential_name")
    if name is None:
        return {}
    for credential in credentials:
        if credential.credential_name == name:
            return credential.credential_values
    raise ConfigurationError(
        f"`{at}.litellm_params.litellm_credential_name` names '{name}', which `credential_list` lacks: add it there."
    )


def _choose_name(entry: ModelEntry, taken: set[str]) -> str:
    """Their `id` where they gave one, else the group's name, numbered."""
    info = entry.model_info if isinstance(entry.model_info, Mapping) else {}
    wanted = str(info.get("id") or entry.model_name)
    numbered = (f"{wanted}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (wanted, *numbered) if name not in taken)


def _weigh(imported: list[Imported]) -> Iterator[Imported]:
    """As their shuffle does: by the first of weight, requests and tokens a minute that the group's first has."""
    firsts: dict[str, Imported] = {}
    for entry in imported:
        first = firsts.setdefault(entry.group, entry)
        kind = next((index for index, value in enumerate(first.shuffle) if value is not None), None)
        weight = 1.0 if kind is None else float(entry.shuffle[kind] or 0.0)
        yield replace(entry, entry={**entry.entry, "weight": weight})


def _build_policies(settings: Settings, ignored: list[Ignored]) -> dict[str, object]:
    cooldown: dict[str, object] = {}
    if settings.allowed_fails is not None:
        cooldown["failures"] = settings.allowed_fails + 1
    if settings.cooldown_time is not None:
        cooldown |= {
            "first_seconds": settings.cooldown_time,
            "longest_seconds": max(300.0, settings.cooldown_time),
        }
    return {"cooldown": cooldown, "cache": _build_cache(settings, ignored), "budget": _build_budget(settings)}


def _build_cache(settings: Settings, ignored: list[Ignored]) -> dict[str, object]:
    params = settings.cache_params
    store = _CACHE_STORES.get(params.type)
    if not settings.cache:
        return {"store": "none"}
    if store is None or params.mode == "default_off":
        key = "type" if store is None else "mode"
        ignored.append(Ignored(f"litellm_settings.cache_params.{key}", "nothing is cached: put a `cache` of ours"))
        return {"store": "none"}
    ignored += list_extras(params, "litellm_settings.cache_params", "REDIS_URL says where, and every kind of answer")
    built: dict[str, object] = {"store": store, "max_temperature": _HOTTEST, "directory": params.disk_cache_dir}
    return built if params.ttl is None else {**built, "ttl_seconds": params.ttl}


def _build_budget(settings: Settings) -> dict[str, object]:
    if settings.max_budget is None:
        return {}
    if settings.budget_duration not in ("1d", "24h"):
        raise ConfigurationError(
            "`litellm_settings.max_budget` is not by the day, which llmyard's caps are: set "
            "`litellm_settings.budget_duration` to 1d and the amount for one day."
        )
    return {"daily_usd": settings.max_budget}
