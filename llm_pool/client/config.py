"""How the short forms are configured: by explicit values, by LLM_* variables, or by an llmyard.yaml."""

from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import ConfigurationError
from shared.settings import Settings, load_environment


@dataclass(frozen=True, slots=True)
class LLMConfig:
    """Either one backend, or the model groups of a catalogue, or a pool service."""

    backend: str | None = None
    """`ollama`, `mlx`, `remote`, `mock`, or the name of a provider; None asks the groups of a catalogue."""
    model: str | None = None
    """The backend's own name of a model, or the name of a group; None is the one that is shipped."""
    api_key: str | None = field(default=None, repr=False)
    """None is looked for in the provider's usual variable."""
    api_base: str | None = None
    """None is the provider's usual address."""
    temperature: float = 0.7
    max_tokens: int = 512
    top_p: float = 0.9
    timeout_seconds: float = 30.0
    """Bound of one attempt at a backend; the deployments of a catalogue have their own."""
    enable_cache: bool = True
    """An equal request is answered again from the cache, however hot; False asks anew each time."""
    cache_dir: Path | None = None
    """Where a backend's answers are kept; None is in memory."""
    catalog_file: Path | None = None
    """An llmyard.yaml; None is the shipped one."""
    pool_url: str | None = None
    """A pool service to ask for the groups, instead of calling providers from here."""
    allow_mock: bool = False
    """Let the mock answer for the groups when no provider is configured or in reach."""

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: no attempt could be made so; what goes into requests is checked with them.
        """
        if not self.timeout_seconds > 0:
            raise ConfigurationError(f"`timeout_seconds` is {self.timeout_seconds}: set it to more than 0.")


def load_config(path: Path | None = None) -> LLMConfig:
    """From the environment; `path` names an llmyard.yaml, and stands above LLMYARD_CONFIG.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    return read_config(load_environment(), path)


def read_config(settings: Settings, path: Path | None = None) -> LLMConfig:
    names_one_provider = settings.llm_api_base is not None or settings.llm_api_key is not None
    return LLMConfig(
        backend=settings.llm_backend or ("remote" if names_one_provider and path is None else None),
        model=settings.llm_model,
        api_key=settings.llm_api_key,
        api_base=settings.llm_api_base,
        temperature=settings.llm_temperature,
        max_tokens=settings.llm_max_tokens,
        top_p=settings.llm_top_p,
        timeout_seconds=settings.llm_timeout,
        enable_cache=settings.llm_enable_cache,
        cache_dir=settings.llm_cache_dir,
        catalog_file=path or settings.llmyard_config,
        pool_url=settings.llm_pool_url,
        allow_mock=settings.llmyard_mock_when_no_provider,
    )
