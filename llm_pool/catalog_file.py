"""Reads a catalogue from YAML, so that every mistake in it stops the start with one sentence that names the place."""

import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_pool.catalog import Catalog, Deployment, LeftOut, ModelGroup, Strategy
from llm_pool.providers.registry import PROVIDERS
from shared.errors import ConfigurationError

Lookup = Callable[[str], str | None]
"""The value of an environment variable, or None."""

DEFAULT_CATALOG = Path(__file__).with_name("default_catalog.yaml")

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_STRICT = ConfigDict(frozen=True, extra="forbid")


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a key stand twice and silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigurationError(f"the key '{key}' stands twice in one place: remove or rename one.")
        return super().construct_mapping(node, deep)


_Name = Annotated[str, Field(min_length=1)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_EntryT = TypeVar("_EntryT", bound=BaseModel)


class _DeploymentEntry(BaseModel):
    model_config = _STRICT

    name: _Name
    provider: _Name
    model: _Name
    base_url: str | None = None
    api_key: str | None = None
    timeout_seconds: _Seconds = 60.0
    options: dict[str, object] = {}
    only_if_reachable: bool = False
    takes_temperature: bool = True


class _GroupEntry(BaseModel):
    model_config = _STRICT

    deployments: tuple[_Name, ...]
    fallbacks: tuple[_Name, ...] = ()
    strategy: Strategy = "least_latency"
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_seconds: _Seconds = 300.0


class _FileEntry(BaseModel):
    model_config = _STRICT

    deployments: Annotated[tuple[object, ...], Field(min_length=1)]
    groups: Annotated[dict[_Name, object], Field(min_length=1)]


def load_catalog(path: Path, lookup: Lookup) -> Catalog:
    """Deployments whose variables are not set are left out; their groups remain, so no key is needed to know those.

    Raises:
        ConfigurationError: naming the file, the key, and what to do.
    """
    try:
        return _build_catalog(_read_yaml(path), lookup)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _read_yaml(path: Path) -> object:
    try:
        document: object = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigurationError(
            f"the file cannot be read ({error.strerror}): set LLMYARD_CONFIG to a catalogue, or unset it."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the file is not YAML{_locate(error)}: mend its syntax.") from error
    return document


def _locate(error: Exception) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


def _build_catalog(document: object, lookup: Lookup) -> Catalog:
    entries = _validate(_FileEntry, document, at="")
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
    groups = {
        name: _build_group(name, _validate(_GroupEntry, raw, at=f"groups.{name}"), deployments, absent)
        for name, raw in entries.groups.items()
    }
    return Catalog(groups, tuple(left_out))


def _build_deployment(raw: object, lookup: Lookup, at: str) -> tuple[Deployment, str | None]:
    """With the first variable it lacks; an entry is checked whole even then, so that a mistake shows without keys."""
    missing: list[str] = []
    entry = _validate(_DeploymentEntry, _resolve(raw, lookup, missing), at)
    if entry.provider not in PROVIDERS:
        known = ", ".join(sorted(PROVIDERS))
        raise ConfigurationError(f"`{at}.provider` is '{entry.provider}', which is unknown: use one of {known}.")
    if entry.only_if_reachable and entry.base_url is None:
        raise ConfigurationError(f"`{at}.only_if_reachable` has nothing to reach: set `{at}.base_url`.")
    return Deployment(**dict(entry)), missing[0] if missing else None


def _build_group(name: str, entry: _GroupEntry, deployments: Mapping[str, Deployment], absent: set[str]) -> ModelGroup:
    for deployment in entry.deployments:
        if deployment not in deployments:
            raise ConfigurationError(
                f"`groups.{name}.deployments` names '{deployment}', which is no deployment: "
                f"use one of {', '.join(deployments)}."
            )
    usable = tuple(deployments[deployment] for deployment in entry.deployments if deployment not in absent)
    return ModelGroup(name, usable, entry.fallbacks, entry.strategy, entry.retries, entry.timeout_seconds)


def _resolve(raw: object, lookup: Lookup, missing: list[str]) -> object:
    """`${NAME}` and `${NAME:-default}` in every string; a name without value stays as it is and is noted."""

    def replace(match: re.Match[str]) -> str:
        value = lookup(match["name"]) or match["default"]
        if value is None:
            missing.append(match["name"])
            return match[0]
        return value

    if isinstance(raw, str):
        return _VARIABLE.sub(replace, raw)
    if isinstance(raw, dict):
        return {key: _resolve(value, lookup, missing) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_resolve(value, lookup, missing) for value in raw]
    return raw


def _validate(entry: type[_EntryT], raw: object, at: str) -> _EntryT:
    try:
        return entry.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(filter(None, (at, *(str(part) for part in first["loc"])))) or "the whole file"
        known = ", ".join(entry.model_fields)
        raise ConfigurationError(f"`{place}` cannot be used ({first['msg']}): the keys here are {known}.") from error
