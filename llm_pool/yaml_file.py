"""Reads a YAML file so that its mistakes are named by line."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from shared.errors import ConfigurationError


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a key stand twice and silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigurationError(f"the key '{key}' stands twice in one place: remove or rename one.")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, remedy: str = "mend its path or its rights") -> object:
    """`remedy` is for a file that cannot be read.

    Raises:
        ConfigurationError: without the file's name, which is the caller's to say.
    """
    try:
        document: object = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigurationError(f"the file cannot be read ({error.strerror}): {remedy}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the file is not YAML{_locate(error)}: mend its syntax.") from error
    return document


def _locate(error: Exception) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
