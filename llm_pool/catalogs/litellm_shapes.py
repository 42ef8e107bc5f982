"""What of a LiteLLM configuration we read, key by key; whatever else stands there is noted, never dropped in silence.

By LiteLLM's own documentation of `config.yaml`. Keys that we do not list are allowed, as theirs grow with each release.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llm_pool.catalogs.catalog_shapes import Count, Name, Seconds, Usd

_OPEN = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
_FROM_ENVIRONMENT = re.compile(r"os\.environ/(\w+)")

FallbackList = tuple[dict[str, tuple[Name | dict[str, object], ...]], ...]
"""Which group, and who is asked in its place."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key that we cannot honour."""

    key: str
    reason: str


class ModelInfo(BaseModel):
    """`model_info` of an entry."""

    model_config = _OPEN

    id: Name | int | None = None
    mode: str = "chat"
    supports_function_calling: bool = True
    supports_response_schema: bool = True
    input_cost_per_token: Usd | None = None
    output_cost_per_token: Usd | None = None
    cache_read_input_token_cost: Usd | None = None
    cache_creation_input_token_cost: Usd | None = None


class Params(BaseModel):
    """`litellm_params` of an entry."""

    model_config = _OPEN

    model: Name
    custom_llm_provider: str | None = None
    api_key: str | None = None
    api_base: str | None = None
    base_url: str | None = None
    litellm_credential_name: str | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    max_parallel_requests: Count | None = None
    weight: Weight | None = None
    order: int | None = None
    timeout: Seconds | None = None
    max_tokens: Count | None = None
    mock_response: str | None = None
    max_budget: object = None
    input_cost_per_token: Usd | None = None
    output_cost_per_token: Usd | None = None
    cache_read_input_token_cost: Usd | None = None
    cache_creation_input_token_cost: Usd | None = None


class ModelEntry(BaseModel):
    """One entry of `model_list`."""

    model_config = _OPEN

    model_name: Name
    litellm_params: dict[str, object]
    model_info: object = {}
    rpm: Count | None = None
    """Where older files have it; so the next."""
    tpm: Count | None = None


class CacheParams(BaseModel):
    """`cache_params`."""

    model_config = _OPEN

    type: str = "local"
    mode: Literal["default_on", "default_off"] = "default_on"
    ttl: Seconds | None = None
    disk_cache_dir: str | None = None


class Settings(BaseModel):
    """`router_settings` and `litellm_settings`, which share most of their keys; the former wins."""

    model_config = _OPEN

    routing_strategy: str = "simple-shuffle"
    model_group_alias: dict[Name, Name | dict[str, object]] = {}
    fallbacks: FallbackList = ()
    default_fallbacks: tuple[Name, ...] = ()
    context_window_fallbacks: FallbackList | None = None
    content_policy_fallbacks: FallbackList | None = None
    num_retries: Annotated[int, Field(ge=0)] = 2
    timeout: Seconds | None = None
    request_timeout: Seconds | None = None
    allowed_fails: Annotated[int, Field(ge=0)] | None = None
    cooldown_time: Seconds | None = None
    default_max_parallel_requests: Count | None = None
    default_litellm_params: dict[str, object] = {}
    cache: bool = False
    cache_params: CacheParams = CacheParams()
    max_budget: Usd | None = None
    budget_duration: str | None = None
    provider_budget_config: object = None


class Credential(BaseModel):
    """One entry of `credential_list`."""

    model_config = _OPEN

    credential_name: Name
    credential_values: dict[str, object]


class LitellmFile(BaseModel):
    """The whole file; its sections are checked each in its place."""

    model_config = _OPEN

    model_list: Annotated[tuple[object, ...], Field(min_length=1)]
    router_settings: dict[str, object] | None = None
    litellm_settings: dict[str, object] | None = None
    credential_list: tuple[Credential, ...] = ()
    environment_variables: dict[str, object] | None = None
    include: object = None


def rewrite_variables(raw: object) -> Any:
    """`os.environ/NAME`, as we write it."""
    if isinstance(raw, str):
        return _FROM_ENVIRONMENT.sub(r"${\1}", raw)
    if isinstance(raw, Mapping):
        return {key: rewrite_variables(value) for key, value in raw.items()}
    if isinstance(raw, list):
        return [rewrite_variables(value) for value in raw]
    return raw


def list_extras(entry: BaseModel, at: str, reason: str) -> Iterator[Ignored]:
    """The keys that we do not know."""
    for key in entry.model_extra or {}:
        yield Ignored(f"{at}.{key}" if at else key, reason)


def per_million(usd_per_token: Decimal | None) -> Decimal | None:
    return None if usd_per_token is None else usd_per_token * 1_000_000
