"""The repository as the checks see it: its sources, its text files, its imports."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp

from tests.architecture.checks import Source

ROOT = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "llm_pool", "shared")
HIDDEN_BUT_OURS = {".ci"}


def read_source(path: Path) -> Source:
    return Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


@cache
def package_sources() -> tuple[Source, ...]:
    return tuple(read_source(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))


@cache
def all_sources() -> tuple[Source, ...]:
    return tuple(read_source(path) for path in text_files() if path.suffix == ".py")


@cache
def text_files() -> tuple[Path, ...]:
    return tuple(sorted(path for path in _walk() if _is_text(path)))


def _walk() -> Iterator[Path]:
    for directory, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name in HIDDEN_BUT_OURS or not name.startswith((".", "__pycache__"))]
        yield from (Path(directory, name) for name in files if name != ".env")


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(1024)


def read_imports(*packages: str) -> dict[str, set[str]]:
    """Who imports whom among the modules of these packages; grimp counts TYPE_CHECKING and late imports too."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
