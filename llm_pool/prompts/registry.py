"""Where prompts are found by name: the shipped library, and the directories of whoever uses it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog
from packaging.version import InvalidVersion, Version

from llm_pool.prompts.prompt_file import load_prompts
from llm_pool.prompts.template import PromptTemplate
from shared.errors import ConfigurationError, InputError, NotFoundError

LIBRARY = Path(__file__).parent / "library"
"""The prompts that are shipped."""
_SUFFIXES = {".yaml", ".yml"}

log = structlog.get_logger()
_Seen = Mapping[Path, tuple[int, int]]
"""When each file was last written, in nanoseconds, and its length."""


class PromptRegistry:
    """Prompts by name and version."""

    def __init__(self, *, reload: bool = False) -> None:
        """`reload` is for who is writing prompts: before each `get`, changed directories are read again."""
        self._reload = reload
        self._added: list[PromptTemplate] = []
        self._directories: list[Path] = []
        self._seen: _Seen = {}
        self._versions: dict[str, dict[Version, PromptTemplate]] = {}

    def load_library(self) -> None:
        self.load_directory(LIBRARY)

    def load_directory(self, directory: Path) -> None:
        """All YAML files in it and below.

        Raises:
            ConfigurationError: there is none, one has a mistake, or a prompt is there already in the same version.
        """
        if not _list_files(directory):
            raise ConfigurationError(f"{directory}: there is no YAML file in it: name a directory with prompts.")
        self._read([*self._directories, directory], self._added)

    def add(self, template: PromptTemplate) -> None:
        """
        Raises:
            ConfigurationError: it is there already in the same version.
        """
        self._read(self._directories, [*self._added, template])

    def get(self, name: str, version: str | None = None) -> PromptTemplate:
        """The latest version unless one is named; one that is not final (`2.0rc1`) only where no other is there.

        Raises:
            NotFoundError: there is no such prompt, or not in this version.
            ConfigurationError: a file was changed, and has a mistake now.
        """
        if self._reload and _look_at(self._directories) != self._seen:
            self._read(self._directories, self._added)
            log.info("prompts_reloaded", prompts=len(self.templates()))
        versions = self._versions.get(name)
        if versions is None:
            known = ", ".join(sorted(self._versions))
            raise NotFoundError("prompt", f"there is no prompt '{name}'", f"use one of: {known}")
        if version is None:
            return versions[_choose_latest(versions)]
        found = versions.get(_read_version(version))
        if found is None:
            known = ", ".join(str(each) for each in sorted(versions))
            raise NotFoundError("version", f"there is no version '{version}' of '{name}'", f"use one of: {known}")
        return found

    def templates(self) -> tuple[PromptTemplate, ...]:
        """All of them, by name and version."""
        return tuple(
            versions[version] for _, versions in sorted(self._versions.items()) for version in sorted(versions)
        )

    def _read(self, directories: list[Path], added: list[PromptTemplate]) -> None:
        """All or nothing: a mistake leaves everything as it was."""
        seen = _look_at(directories)
        found = [(template, path) for path in seen for template in load_prompts(path)]
        self._versions = _index([*found, *((template, None) for template in added)])
        self._directories, self._added, self._seen = directories, added, seen


def _index(found: Iterable[tuple[PromptTemplate, Path | None]]) -> dict[str, dict[Version, PromptTemplate]]:
    versions: dict[str, dict[Version, PromptTemplate]] = {}
    places: dict[tuple[str, Version], str] = {}
    for template, path in found:
        key, place = (template.name, template.version), "code" if path is None else str(path)
        if key in places:
            raise ConfigurationError(
                f"{place}: the prompt '{template.name}' {template.version} is in {places[key]} already: "
                "give one of them another name or version."
            )
        places[key] = place
        versions.setdefault(template.name, {})[template.version] = template
    return versions


def _choose_latest(versions: Iterable[Version]) -> Version:
    return max(versions, key=lambda version: (not version.is_prerelease, version))


def _read_version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise InputError("version", f"'{text}' is no version", "give one such as 1.2") from None


def _look_at(directories: Iterable[Path]) -> _Seen:
    stats = {path: path.stat() for directory in directories for path in _list_files(directory)}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def _list_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
