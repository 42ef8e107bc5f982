"""Who speaks OpenAI's dialect, where, and with which quirks: data, from the providers' documentation.

A quirk is a field that a provider refuses with HTTP 400, or a feature it has or lacks. Whatever a single model lacks
is said by its deployment's `supports`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llm_pool.providers import quota_headers
from llm_pool.providers.quota_headers import HeaderDialect
from llm_pool.types import Capability

JsonStyle = Literal["json_schema", "json_schema_only", "json_object_with_schema", "none"]
"""How a shape is asked for: OpenAI's way, the same for lack of a plain JSON mode, llama.cpp's way, not at all."""

_CHAT: frozenset[Capability] = frozenset({"chat", "stream", "tools", "json"})
_ALL: frozenset[Capability] = _CHAT | {"embed"}


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider of the dialect."""

    base_url: str | None
    """Its public address, or the one it usually has on this machine; None where everybody has their own."""
    key_variable: str | None = None
    """Which environment variable usually holds the key."""
    needs_key: bool = True
    quota: HeaderDialect = quota_headers.NONE
    capabilities: frozenset[Capability] = _ALL
    max_tokens_field: str = "max_tokens"
    json_style: JsonStyle = "json_schema"
    marks_strict: bool = False
    """Takes `strict` with a tool or a schema, and enforces it."""
    asks_for_usage: bool = True
    """Counts the tokens of a stream only when asked to by `stream_options`."""
    takes_names: bool = True
    """Takes `name` with a message."""
    takes_user: bool = False
    names_tool: bool = True
    """Takes the name of a tool as `tool_choice`, and not only `required`."""
    takes_extra_content: bool = False
    """Takes `extra_content` with a tool call; Gemini 3 refuses its own calls without the one it gave."""
    embeds_base64: bool = False
    """Sends vectors as base64 when asked to, which is half as long and parsed without digits."""


_LOCAL_HOST = "http://127.0.0.1"

PRESETS: Mapping[str, Preset] = {
    "openai_compatible": Preset(
        None, needs_key=False, quota=quota_headers.OPENAI, takes_user=True, takes_extra_content=True
    ),
    # OpenAI's reasoning models refuse `max_tokens`; many who speak its dialect know nothing else.
    "openai": Preset(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        quota=quota_headers.OPENAI,
        max_tokens_field="max_completion_tokens",
        marks_strict=True,
        takes_user=True,
        embeds_base64=True,
    ),
    # Refuses `messages[].name`, has no embeddings.
    "groq": Preset(
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        quota=quota_headers.GROQ,
        capabilities=_CHAT,
        max_tokens_field="max_completion_tokens",
        marks_strict=True,
        takes_names=False,
        takes_user=True,
    ),
    # The last chunk of a stream always brings the usage.
    "together": Preset(
        "https://api.together.xyz/v1", "TOGETHER_API_KEY", quota=quota_headers.TOGETHER, asks_for_usage=False
    ),
    # Likewise; `stream_options` has no effect there any more.
    "openrouter": Preset(
        "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", marks_strict=True, asks_for_usage=False, takes_user=True
    ),
    # Refuses fields it does not know.
    "gemini": Preset(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        takes_names=False,
        takes_extra_content=True,
    ),
    "vllm": Preset(f"{_LOCAL_HOST}:8000/v1", "VLLM_API_KEY", needs_key=False, takes_user=True, embeds_base64=True),
    # Its Python server answers HTTP 500 to `json_schema`.
    "llamacpp": Preset(f"{_LOCAL_HOST}:8080/v1", needs_key=False, json_style="json_object_with_schema"),
    # Has no plain JSON mode, and takes no tool's name as `tool_choice`.
    "lmstudio": Preset(f"{_LOCAL_HOST}:1234/v1", needs_key=False, json_style="json_schema_only", names_tool=False),
    # Ignores `response_format`, has no embeddings.
    "mlx_server": Preset(
        f"{_LOCAL_HOST}:8080/v1",
        needs_key=False,
        capabilities=frozenset({"chat", "stream", "tools"}),
        json_style="none",
    ),
}

KEY_VARIABLES: Mapping[str, str] = {
    "anthropic": "ANTHROPIC_API_KEY",
    "ollama": "OLLAMA_API_KEY",
    **{name: preset.key_variable for name, preset in PRESETS.items() if preset.key_variable is not None},
}
"""Which environment variable usually holds a provider's key, where it has one."""
