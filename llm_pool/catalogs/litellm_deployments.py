"""One entry of LiteLLM's `model_list`, as a deployment of ours. Pure: what was left aside is handed back."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import get_args

from llm_pool.catalogs.catalog_shapes import check
from llm_pool.catalogs.litellm_shapes import Ignored, ModelEntry, ModelInfo, Params, Settings, list_extras, per_million
from llm_pool.providers.presets import KEY_VARIABLES, PRESETS
from llm_pool.types import Capability
from shared.errors import ConfigurationError

_PROVIDERS = {
    "anthropic": "anthropic",
    "custom_openai": "openai_compatible",
    "gemini": "gemini",
    "groq": "groq",
    "hosted_vllm": "vllm",
    "lm_studio": "lmstudio",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "openai": "openai",
    "openai_like": "openai_compatible",
    "openrouter": "openrouter",
    "together_ai": "together",
}
"""What stands before the slash of their model names, and who speaks that here. Everyone else goes through LiteLLM."""
_KNOWN_BY_NAME = {"gpt-": "openai", "chatgpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai"} | {
    "text-embedding-": "openai",
    "claude-": "anthropic",
}
"""How names without a slash begin."""
_OFFICIAL_OPENAI = "https://api.openai.com"

_SAMPLING = {"temperature", "top_p", "top_k", "seed", "stop"}
_BODY_FIELDS: Mapping[str, set[str]] = {
    "anthropic": {"temperature", "top_p", "top_k", "stop_sequences", "thinking"},
    "ollama": _SAMPLING
    | {"format", "keep_alive", "min_p", "num_ctx", "num_gpu", "num_predict", "num_thread", "repeat_penalty", "think"},
}
_BODY_FIELDS_OF_OTHERS = _SAMPLING | {
    "frequency_penalty",
    "logit_bias",
    "min_p",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "service_tier",
    "user",
    "verbosity",
}
"""Defaults of a request, sent with every one that does not say otherwise."""
_MAX_TOKENS_FIELD = {"ollama": "num_predict", "litellm": "max_tokens", "anthropic": "max_tokens"}
_MODES = {"chat", "embedding", "responses"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one entry."""

    group: str
    model: str
    """As LiteLLM names it, provider included."""
    order: int
    shuffle: tuple[float | None, float | None, float | None]
    """Weight, requests and tokens a minute: by the first that is there LiteLLM shares the calls out."""
    timeout_seconds: float
    entry: dict[str, object]
    """As it would stand in a catalogue of ours."""


def build_deployment(
    entry: ModelEntry, params: Params, name: str, settings: Settings, at: str
) -> tuple[Imported | None, list[Ignored]]:
    """None for what has no place here at all.

    Raises:
        ConfigurationError: a cap on money that would not be kept.
    """
    info = check(ModelInfo, entry.model_info or {}, f"{at}.model_info")
    _refuse_budget(params, at)
    if "*" in entry.model_name or "*" in params.model:
        return None, [Ignored(f"{at}.model_name", "a group has a name; list the models one by one")]
    if info.mode not in _MODES:
        return None, [Ignored(f"{at}.model_info.mode", f"'{info.mode}' is not among what the pool does")]
    provider, model = choose_provider(params)
    options, ignored = _choose_options(params, provider, f"{at}.litellm_params")
    timeout_seconds = params.timeout or settings.timeout or settings.request_timeout or 60.0
    built: dict[str, object] = {
        "name": name,
        "provider": provider,
        "model": model,
        "base_url": params.api_base or params.base_url,
        "api_key": params.api_key or _find_usual_key(params, provider),
        "timeout_seconds": timeout_seconds,
        "options": options,
        "supports": _choose_supports(info),
        "limits": {
            "requests_per_minute": params.rpm,
            "tokens_per_minute": params.tpm,
            "in_flight": params.max_parallel_requests or settings.default_max_parallel_requests,
        },
        "price": _choose_price(params, info),
    }
    if params.max_tokens is not None:
        built["default_max_tokens"] = params.max_tokens
    ignored += list_extras(info, f"{at}.model_info", "it describes the model and changes nothing here")
    ignored += list_extras(entry, at, "unknown")
    shuffle = params.weight, params.rpm, params.tpm
    return Imported(entry.model_name, params.model, params.order or 0, shuffle, timeout_seconds, built), ignored


def choose_provider(params: Params) -> tuple[str, str]:
    """Our name of it, and the model's there."""
    if params.mock_response is not None:
        return "mock", params.model
    prefix, slash, rest = params.model.partition("/")
    if params.custom_llm_provider is not None:
        prefix, rest = params.custom_llm_provider, rest if prefix == params.custom_llm_provider else params.model
        slash = "/"
    known = _PROVIDERS.get(prefix) if slash else _guess_provider(params.model)
    if known is None:
        return "litellm", f"{prefix}/{rest}" if slash else params.model
    base_url = params.api_base or params.base_url
    if known == "openai" and base_url is not None and not base_url.startswith(_OFFICIAL_OPENAI):
        known = "openai_compatible"
    return known, rest if slash else params.model


def _guess_provider(model: str) -> str | None:
    return next((provider for start, provider in _KNOWN_BY_NAME.items() if model.startswith(start)), None)


def _find_usual_key(params: Params, provider: str) -> str | None:
    """As LiteLLM does, where it is their own address that is asked and needs a key."""
    has_own_address = params.api_base is not None or params.base_url is not None
    is_local = provider in PRESETS and not PRESETS[provider].needs_key
    if has_own_address or is_local or provider == "ollama" or provider not in KEY_VARIABLES:
        return None
    return f"${{{KEY_VARIABLES[provider]}}}"


def _choose_options(params: Params, provider: str, at: str) -> tuple[dict[str, object], list[Ignored]]:
    extras = dict(params.model_extra or {})
    if params.mock_response is not None:
        return {"answers": [params.mock_response]}, []
    if provider == "litellm":
        taken = extras
    else:
        allowed = _BODY_FIELDS.get(provider, _BODY_FIELDS_OF_OTHERS)
        taken = {key: value for key, value in extras.items() if key in allowed}
    ignored = [
        Ignored(f"{at}.{key}", f"provider {provider} is not told about it") for key in extras if key not in taken
    ]
    if params.max_tokens is not None:
        field = _MAX_TOKENS_FIELD.get(provider) or PRESETS[provider].max_tokens_field
        taken = {**taken, field: params.max_tokens}
    if provider == "ollama":  # LiteLLM has vectors of whatever model stands there
        taken = {**taken, "embedding_model": choose_provider(params)[1]}
    return taken, ignored


def _choose_supports(info: ModelInfo) -> list[Capability] | None:
    if info.mode == "embedding":
        return ["embed"]
    lacking = {"embed"} if info.mode == "responses" else set()
    lacking |= {"tools"} if not info.supports_function_calling else set()
    lacking |= {"json"} if not info.supports_response_schema else set()
    return [capability for capability in get_args(Capability) if capability not in lacking] if lacking else None


def _choose_price(params: Params, info: ModelInfo) -> dict[str, Decimal | None] | None:
    def choose(field: str) -> Decimal | None:
        given: Decimal | None = getattr(params, field)
        return per_million(getattr(info, field) if given is None else given)

    prompt, completion = choose("input_cost_per_token"), choose("output_cost_per_token")
    if prompt is None and completion is None:
        return None
    return {
        "prompt_usd_per_million": prompt or Decimal(0),
        "completion_usd_per_million": completion or Decimal(0),
        "cached_prompt_usd_per_million": choose("cache_read_input_token_cost"),
        "cache_write_usd_per_million": choose("cache_creation_input_token_cost"),
    }


def _refuse_budget(params: Params, at: str) -> None:
    if params.max_budget is not None:
        raise ConfigurationError(
            f"`{at}.litellm_params.max_budget` caps one deployment, which llmyard does not: remove it, and cap all "
            "together by `litellm_settings.max_budget` with `budget_duration: 1d`."
        )
