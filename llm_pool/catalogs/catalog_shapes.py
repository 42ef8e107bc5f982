"""What may stand in a catalogue file, section by section, and how a mistake in one is told: the place, and the keys.

Each section is checked by itself, so that the keys named are those of its own place.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from llm_pool.catalog import FallBackOn, Strategy
from llm_pool.types import Capability
from shared.errors import ConfigurationError

Lookup = Callable[[str], str | None]
"""The value of an environment variable, or None."""

FREE = "free"
"""As `price` of a deployment: nothing is paid for its tokens."""

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

Name = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Usd = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
EntryT = TypeVar("EntryT", bound=BaseModel)


class FileEntry(BaseModel):
    """The whole file; its sections are checked each in its place."""

    model_config = _STRICT

    deployments: Annotated[tuple[object, ...], Field(min_length=1)]
    groups: Annotated[dict[Name, object], Field(min_length=1)]
    cache: object = {}
    budget: object = {}
    cooldown: object = {}
    quota: object = {}


class DeploymentEntry(BaseModel):
    """See `catalog.Deployment`."""

    model_config = _STRICT

    name: Name
    provider: Name
    model: Name
    base_url: str | None = None
    api_key: str | None = None
    timeout_seconds: Seconds = 60.0
    options: dict[str, object] = {}
    only_if_reachable: bool = False
    takes_temperature: bool = True
    supports: Annotated[tuple[Capability, ...], Field(min_length=1)] | None = None
    limits: object = {}
    price: object = None
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    default_max_tokens: Count = 4096


class LimitsEntry(BaseModel):
    """See `catalog.Limits`."""

    model_config = _STRICT

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_day: Count | None = None
    in_flight: Count | None = None


class PriceEntry(BaseModel):
    """See `catalog.Price`."""

    model_config = _STRICT

    prompt_usd_per_million: Usd
    completion_usd_per_million: Usd
    cached_prompt_usd_per_million: Usd | None = None
    cache_write_usd_per_million: Usd | None = None


class GroupEntry(BaseModel):
    """See `catalog.ModelGroup`."""

    model_config = _STRICT

    deployments: tuple[Name, ...]
    fallbacks: tuple[Name, ...] = ()
    strategy: Strategy = "least_latency"
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_seconds: Seconds = 300.0
    longest_wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    fall_back_on: tuple[FallBackOn, ...] = ()


class CacheEntry(BaseModel):
    """See `policies.CachePolicy`."""

    model_config = _STRICT

    store: Literal["memory", "redis", "disk", "none"] = "memory"
    ttl_seconds: Seconds = 3600.0
    max_entries: Count = 1000
    directory: Path | None = None
    max_temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3


class BudgetEntry(BaseModel):
    """See `policies.BudgetPolicy`."""

    model_config = _STRICT

    daily_usd: Usd | None = None
    tenant_daily_usd: Usd | None = None
    tenants: dict[Name, Usd] = {}
    keys: dict[Name, Usd] = {}
    alert_at: Share = 0.8
    webhook_url: Annotated[str, Field(pattern=r"^https?://")] | None = None


class CooldownEntry(BaseModel):
    """See `policies.CooldownPolicy`."""

    model_config = _STRICT

    failures: Count = 3
    first_seconds: Seconds = 5.0
    longest_seconds: Seconds = 300.0
    ramp_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0


class QuotaEntry(BaseModel):
    """See `policies.QuotaPolicy`."""

    model_config = _STRICT

    warn_at: Share = 0.8


_WRONG_KEYS = ("extra_forbidden", "missing", "model_type")


def check(entry: type[EntryT], raw: object, at: str) -> EntryT:
    """The section at `at`, or the first mistake in it.

    Raises:
        ConfigurationError: naming the place and the keys that may stand there.
    """
    try:
        return entry.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(filter(None, (at, *(str(part) for part in first["loc"])))) or "the whole file"
        is_key = first["type"] in _WRONG_KEYS
        remedy = f"the keys here are {', '.join(entry.model_fields)}" if is_key else "give it another value"
        raise ConfigurationError(f"`{place}` cannot be used ({_word(first)}): {remedy}.") from error


def _word(mistake: ErrorDetails) -> str:
    """Pydantic names our class where a mapping is missing."""
    return "it is no mapping" if mistake["type"] == "model_type" else mistake["msg"]


def as_fields(entry: BaseModel) -> dict[str, Any]:
    """Not `dict(entry)`, which takes the field `keys` of a budget for a mapping's method."""
    return dict(iter(entry))


def fill_in(raw: object, lookup: Lookup, missing: list[str]) -> Any:
    """`${NAME}` and `${NAME:-default}` in every string; a name without value stays as it is and is noted."""

    def replace(match: re.Match[str]) -> str:
        value = lookup(match["name"]) or match["default"]
        if value is None:
            missing.append(match["name"])
            return match[0]
        return value

    if isinstance(raw, str):
        return _VARIABLE.sub(replace, raw)
    if isinstance(raw, Mapping):
        return {key: fill_in(value, lookup, missing) for key, value in raw.items()}
    if isinstance(raw, list):
        return [fill_in(value, lookup, missing) for value in raw]
    return raw


def fill_in_or_refuse(raw: object, lookup: Lookup, at: str) -> Any:
    """As `fill_in`, for what cannot be left out.

    Raises:
        ConfigurationError: a variable is not set.
    """
    missing: list[str] = []
    filled = fill_in(raw, lookup, missing)
    if missing:
        name = missing[0]
        raise ConfigurationError(f"`{at}` names ${{{name}}}, which is not set: set it, or write ${{{name}:-DEFAULT}}.")
    return filled
