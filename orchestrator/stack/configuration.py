"""What a stack is told, and what it tells the programs it starts. Pure."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What a user may choose about a stack; the rest is `Settings`."""

    data_directory: Path
    api_port: int = 8000
    """The next free one is taken if something else has it."""
    flower_port: int = 5555
    concurrency: int | None = None
    """Jobs the worker waits for at once; None leaves it to the settings."""


@dataclass(frozen=True, slots=True)
class StackUrls:
    """Where the parts of llmyard find the servers. They hold passwords."""

    database_url: str
    redis_url: str
    broker_url: str


def build_service_environment(
    urls: StackUrls, options: StackOptions, settings: Settings, directory: Path
) -> dict[str, str]:
    """What our programs must know, on top of the environment this process was given."""
    environment = {
        "DATABASE_URL": urls.database_url,
        "REDIS_URL": urls.redis_url,
        "BROKER_URL": urls.broker_url,
        "LLMYARD_DATA_DIR": str(directory),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.database_url is None:
        # Logins that belong to some other database; empty counts as unset.
        environment |= {"DATABASE_APP_URL": "", "DATABASE_SYSTEM_URL": ""}
    if settings.llmyard_config is not None:
        environment["LLMYARD_CONFIG"] = str(settings.llmyard_config.resolve())
    if options.concurrency is not None:
        environment["LLMYARD_CONCURRENCY"] = str(options.concurrency)
    if _may_mock(settings):
        environment["LLMYARD_MOCK_WHEN_NO_PROVIDER"] = "true"
    return environment


def _may_mock(settings: Settings) -> bool:
    """Only where all is embedded: in front of real data an invented answer would be a lie."""
    was_decided = "llmyard_mock_when_no_provider" in settings.model_fields_set
    is_embedded = settings.database_url is None and settings.redis_url is None and settings.broker_url is None
    return is_embedded and not was_decided


def hide_password(url: str) -> str:
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{parts.hostname or ''}{port}{parts.path}"
