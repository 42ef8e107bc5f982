"""The guides, held against the repository as it stands."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.architecture import checks
from tests.architecture.checks import Source
from tests.architecture.tree import PACKAGES, ROOT, all_sources, package_sources, read_imports, read_source, text_files

ON_PACKAGES = [
    checks.find_long_functions,
    checks.find_long_file,
    checks.find_late_imports,
    checks.find_environment_reads,
    checks.find_vague_name,
]
REFUSE_ASYNC_TASKS = """
from orchestrator.tasks import app
from tests.architecture.checks import find_async_tasks

tasks = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
assert "handle_message" in tasks, tasks
assert find_async_tasks(tasks) == []
"""


@pytest.mark.parametrize("check", ON_PACKAGES)
def test_packages(check: Callable[[Source], list[str]]) -> None:
    assert [violation for source in package_sources() for violation in check(source)] == []


def test_docstrings() -> None:
    sources = [source for source in all_sources() if not source.path.startswith("tests/")]
    assert [violation for source in sources for violation in checks.find_missing_docstrings(source)] == []


def test_exceptions_give_their_reason() -> None:
    assert [violation for source in all_sources() for violation in checks.find_unexplained_exceptions(source)] == []


def test_most_functions_are_short() -> None:
    lengths = [lines for source in package_sources() for lines in checks.measure_functions(source).values()]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[-1] <= 24


def test_no_import_circle() -> None:
    assert checks.find_import_circle(read_imports(*PACKAGES)) == []


def test_tasks_are_plain_functions() -> None:
    assert checks.find_async_functions(read_source(ROOT / "orchestrator" / "tasks.py")) == []
    # In a process of its own: the application would keep the configuration for every test after this one.
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"}
    subprocess.run([sys.executable, "-c", REFUSE_ASYNC_TASKS], cwd=ROOT, env=environment, check=True)


def test_no_home_path_in_any_text() -> None:
    found = {path: checks.find_home_paths(path.read_text(encoding="utf-8", errors="replace")) for path in text_files()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_locks_name_no_host() -> None:
    folder = ROOT / "requirements"
    locks = {lock.relative_to(folder).as_posix(): lock.read_text() for lock in folder.rglob("*") if lock.is_file()}
    own = {name for name in locks if not name.startswith("peers/")}
    assert own == {"dev.txt", "litellm.txt", "llamacpp.txt", "mlx.txt", "run.txt"}
    assert {name: lines for name, text in locks.items() if (lines := checks.find_hosts(text))} == {}
    assert not (ROOT / "uv.lock").exists()
