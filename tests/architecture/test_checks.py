"""Each check fails on a bad sample: a check that cannot fail proves nothing about the tree."""

from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from tests.architecture import checks, tree
from tests.architecture.checks import Source

BAD_SOURCES = [
    pytest.param(checks.find_long_functions, "def long():\n" + "    pass\n" * 40, id="long function"),
    pytest.param(checks.find_long_file, "x = 1\n" * 301, id="long file"),
    pytest.param(checks.find_late_imports, "def f():\n    import json", id="late import"),
    pytest.param(checks.find_late_imports, "class C:\n    async def f(self):\n        from a import b", id="late from"),
    pytest.param(checks.find_environment_reads, "import os\nx = os.environ['A']", id="os.environ"),
    pytest.param(checks.find_environment_reads, "import os\nx = os.getenv('A')", id="os.getenv"),
    pytest.param(checks.find_environment_reads, "from os import environ", id="from os"),
    pytest.param(checks.find_async_functions, "@app.task\nasync def task(): ...", id="async def"),
    pytest.param(checks.find_missing_docstrings, "x = 1", id="module without docstring"),
    pytest.param(checks.find_missing_docstrings, '"""Why."""\nclass Public: ...', id="class without docstring"),
    pytest.param(checks.find_unexplained_exceptions, "x = 1  # type: " + "ignore", id="bare ignore"),
    pytest.param(checks.find_unexplained_exceptions, "x = 1  # type: " + "ignore[misc]", id="ignore without reason"),
    pytest.param(checks.find_unexplained_exceptions, "x = 1  # no" + "qa: S101, E501", id="noqa without reason"),
]


@pytest.mark.parametrize(("check", "text"), BAD_SOURCES)
def test_bad_source_is_found(check: Callable[[Source], list[str]], text: str) -> None:
    assert check(Source("shared/sample.py", text))


@pytest.mark.parametrize("check", {param.values[0] for param in BAD_SOURCES})
def test_good_source_is_left_alone(check: Callable[[Source], list[str]]) -> None:
    text = '"""Why."""\nimport os\n\ndef f() -> None:\n    os.kill(1, 0)  # type: ignore[misc]  # for a reason\n'
    assert check(Source("shared/sample.py", text)) == []


@pytest.mark.parametrize("path", ["shared/utils.py", "llm_pool/helpers/text.py"])
def test_vague_name_is_found(path: str) -> None:
    assert checks.find_vague_name(Source(path, ""))


def test_async_task_is_found() -> None:
    app = Celery("sample", set_as_current=False)

    async def answer() -> None: ...

    app.task(answer, name="answer")
    assert checks.find_async_tasks({"answer": app.tasks["answer"]}) == ["answer"]


def test_home_path_is_found() -> None:
    assert checks.find_home_paths("data = '/" + "home/someone/data'")


@pytest.mark.parametrize("line", ["--index-url x", "--find-links wheels", "a @ b", "# from https://example.org"])
def test_host_is_found(line: str) -> None:
    assert checks.find_hosts(line)


@pytest.mark.parametrize(
    "back",
    [
        pytest.param("from sample_circle import a", id="plain"),
        pytest.param("def f():\n    from sample_circle import a", id="late"),
        pytest.param("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sample_circle.a", id="for types"),
    ],
)
def test_import_circle_is_found(back: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sample_circle"
    package.mkdir()
    for name, text in {"__init__": "", "a": "from sample_circle import b", "b": back}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    circle = checks.find_import_circle(tree.read_imports("sample_circle"))
    assert set(circle) == {"sample_circle.a", "sample_circle.b"}
