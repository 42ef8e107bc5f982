"""The one reader of the environment. Everything else is handed a `Settings` value."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ConfigurationError

RUNNING_STACK_FILE = "stack.json"
"""Written into the data directory by `llmyard up`: the URLs of what it runs, readable by its owner only."""


def _default_data_dir() -> Path:
    return platformdirs.user_data_path("llmyard")


class Settings(BaseSettings):
    """Names are those of the environment, in lower case."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    database_url: str | None = None
    """Any `postgresql://` URL, socket directories included. May be the owner's: no working connection keeps it."""
    database_app_url: str | None = None
    """Login of the `llmyard_app` role, where it has one of its own; else `database_url`."""
    database_system_url: str | None = None
    """Login of the `llmyard_system` role, where it has one of its own; else `database_url`."""
    redis_url: str | None = None
    """Results, and the broker unless `broker_url` is set."""
    broker_url: str | None = None
    llm_pool_url: str | None = None
    """Base URL of a pool service; unset, the pool runs inside the worker."""
    llm_backend: str | None = None
    """Of the short forms, as are all up to `llm_cache_dir`: one backend instead of the groups of a catalogue."""
    llm_model: str | None = None
    """The backend's own name of a model; without a backend, a model group."""
    llm_api_key: str | None = Field(default=None, repr=False)
    llm_api_base: str | None = None
    llm_temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    llm_max_tokens: int = Field(default=512, ge=1)
    llm_top_p: float = Field(default=0.9, gt=0.0, le=1.0)
    llm_timeout: float = Field(default=30.0, gt=0.0, allow_inf_nan=False)
    """Seconds for one attempt."""
    llm_enable_cache: bool = True
    llm_cache_dir: Path | None = None
    """Where answers are kept between runs; unset, in memory."""
    llmyard_config: Path | None = None
    """Path of an llmyard.yaml with deployments and groups; unset, the shipped one."""
    llmyard_data_dir: Path = Field(default_factory=_default_data_dir)
    """Where `llmyard up` keeps the embedded Postgres and Valkey."""
    llmyard_mock_when_no_provider: bool = False
    """Let the mock provider answer when no provider is configured. `llmyard up` sets it on its embedded stack only."""
    llmyard_log_format: str = "console"
    """`console` for people, `json` for machines."""
    llmyard_log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR; what is below is not written."""
    llmyard_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where a worker answers Prometheus; unset, it does not."""
    llmyard_metrics_host: str = "127.0.0.1"
    """The address it listens on for that."""
    prometheus_multiproc_dir: Path | None = None
    """A directory where the processes of one machine keep their metrics together; one answer then tells of all."""
    otel_exporter_otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector; unset, nothing is traced. The SDK reads its own OTEL_* besides."""
    llmyard_trace_content: bool = False
    """Put prompts and answers into spans."""
    tiktoken_cache_dir: Path | None = None
    """Where tiktoken's data lies, to count the tokens of OpenAI's models exactly; it is never fetched."""
    llmyard_concurrency: int = Field(default=64, ge=1)
    """Jobs one worker process waits for at once."""
    llmyard_lease_seconds: float = Field(default=30.0, ge=1.0, allow_inf_nan=False)
    """A run not heard of for this long is given to another worker; three heartbeats fit in it."""
    llmyard_shutdown_grace_seconds: float = Field(default=10.0, ge=0.0, allow_inf_nan=False)
    """On SIGTERM a worker lets its jobs go on for this long, then hands them back."""
    llmyard_parked_expires_seconds: float = Field(default=7 * 86_400.0, ge=1.0, le=36_500 * 86_400.0)
    """What has been parked for longer is discarded, with a result that says so."""
    llmyard_worker_silent_seconds: float = Field(default=60.0, ge=2.0, allow_inf_nan=False)
    """A worker that has room and neither got nor asked for a job for this long does not work: `/ready` says so."""

    llmyard_planned_end_fd: int | None = None
    """Set by whoever keeps a worker alive: the file descriptor where the worker tells that its end was planned."""

    @property
    def wants_metrics(self) -> bool:
        """Somebody could read those of a worker."""
        return self.llmyard_metrics_port is not None or self.prometheus_multiproc_dir is not None

    def require_database_url(self) -> str:
        return self._require("database_url", "the URL of a Postgres, such as postgresql://user:password@host/llmyard")

    def require_redis_url(self) -> str:
        return self._require("redis_url", "the URL of a Redis or Valkey, such as redis://host:6379/0")

    def require_broker_url(self) -> str:
        return self.broker_url or self.require_redis_url()

    def _require(self, name: str, description: str) -> str:
        value: str | None = getattr(self, name)
        if value is None:
            raise ConfigurationError(
                f"{name.upper()} is not set: set it to {description}, or start everything with `llmyard up`."
            )
        return value


def load_settings() -> Settings:
    """The environment first; what it leaves out comes from a stack that `llmyard up` is running.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    settings = load_environment()
    found = find_running_stack(settings.llmyard_data_dir)
    missing = {name: value for name, value in found.items() if getattr(settings, name, None) is None}
    return settings.model_copy(update=missing)


def load_environment() -> Settings:
    """The environment alone, for whoever is to start a stack of its own.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(f"{name} cannot be used: {first['msg']}.") from error


def find_running_stack(data_dir: Path) -> Mapping[str, Any]:
    """The URLs that `llmyard up` wrote down, or nothing when it is not running there."""
    try:
        urls: dict[str, Any] = json.loads((data_dir / RUNNING_STACK_FILE).read_text())["urls"]
    except (FileNotFoundError, PermissionError):
        return {}
    return urls


def find_secret(name: str) -> str | None:
    """The value of an environment variable that a configuration refers to as `${NAME}`; empty counts as unset."""
    return os.environ.get(name) or None


def child_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """What a program started by us gets as its environment: our own, with these on top."""
    return {**os.environ, **overrides}


def set_default_variable(name: str, value: str) -> None:
    """For a library that reads the environment when it is imported; what is set already stands."""
    os.environ.setdefault(name, value)
