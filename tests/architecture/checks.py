"""The guides a linter does not know, each as one small function: it takes a source and names what breaks the guide.

Kept apart from the tests, so that each check is seen to fail on a bad sample before it is trusted with the tree.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

LONGEST_FUNCTION = 40
LONGEST_FILE = 300
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}

# Heavy vendor SDKs alone may be imported late, in their provider file: (file, top-level package) -> reason.
LATE_IMPORTS = {
    ("llm_pool/tokens/vocabularies.py", "tiktoken"): "an optional extra, asked only where its data is there",
}

_HOME_PATH = re.compile(r"/(home|Users|root)/\w")
_NAMES_A_HOST = re.compile(r"://|--index-url|--extra-index-url|--find-links|\s@\s")
_BARE_EXCEPTION = re.compile(r"#\s*(type:\s*ignore(\[[^\]]*\])?|noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?)\s*(#\s*noqa.*)?$")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A Python file: its path from the root of the repository, with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def functions(self) -> Iterator[FunctionNode]:
        return (node for node in ast.walk(self.tree) if isinstance(node, FunctionNode))

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path}:{node.lineno}"


def measure_functions(source: Source) -> dict[str, int]:
    """Lines of each function from `def` to its end, docstring included."""
    return {
        f"{source.at(node)} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in source.functions()
    }


def find_long_functions(source: Source) -> list[str]:
    return [f"{name}: {lines} lines" for name, lines in measure_functions(source).items() if lines > LONGEST_FUNCTION]


def find_long_file(source: Source) -> list[str]:
    lines = source.text.count("\n")
    return [f"{source.path}: {lines} lines"] if lines > LONGEST_FILE else []


def find_late_imports(source: Source) -> list[str]:
    """Imports inside a function, where nobody sees what a module depends on."""
    found = {node for function in source.functions() for node in ast.walk(function)}
    imports = [node for node in found if isinstance(node, ast.Import | ast.ImportFrom)]
    return [
        source.at(node)
        for node in imports
        if not all((source.path, name) in LATE_IMPORTS for name in imported_packages(node))
    ]


def imported_packages(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
    return {name.partition(".")[0] for name in names}


def find_environment_reads(source: Source) -> list[str]:
    """Any use of the process's environment; `shared/settings.py` alone may."""
    if source.path == "shared/settings.py":
        return []
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    attributes = [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os"
    ]
    imports = [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names}
    ]
    return [source.at(node) for node in (*attributes, *imports)]


def find_async_functions(source: Source) -> list[str]:
    return [f"{source.at(node)} {node.name}" for node in source.functions() if isinstance(node, ast.AsyncFunctionDef)]


def find_async_tasks(tasks: Mapping[str, Any]) -> list[str]:
    """Celery would hand on the un-awaited coroutine of such a task as its result."""
    return [name for name, task in tasks.items() if inspect.iscoroutinefunction(task.run)]


def find_vague_name(source: Source) -> list[str]:
    path = PurePosixPath(source.path)
    return [source.path] if VAGUE_NAMES & {path.stem, *path.parent.parts} else []


def find_missing_docstrings(source: Source) -> list[str]:
    """Every file says why it exists, every public class what it is; names and types carry the rest."""
    classes = [node for node in source.tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    missing = [f"{source.at(node)} {node.name}" for node in classes if not ast.get_docstring(node)]
    return missing if ast.get_docstring(source.tree) else [source.path, *missing]


def find_unexplained_exceptions(source: Source) -> list[str]:
    """`type: ignore` and `noqa` need a reason behind them on the same line."""
    lines = enumerate(source.text.splitlines(), start=1)
    return [f"{source.path}:{number}" for number, line in lines if _BARE_EXCEPTION.search(line)]


def find_home_paths(text: str) -> list[str]:
    return [line for line in text.splitlines() if _HOME_PATH.search(line)]


def find_hosts(requirements: str) -> list[str]:
    """A lock must install from whatever index the reader uses."""
    return [line for line in requirements.splitlines() if _NAMES_A_HOST.search(line)]


def find_import_circle(imports: Mapping[str, set[str]]) -> list[str]:
    """The first circle, module by module, or nothing."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []
