"""Reads the pages of the documentation apart: sections, tables, code, so that tests can hold them to the program."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """From the heading to the next of its rank."""
    assert f"\n{heading}\n" in text, f"there is no heading {heading!r}"
    marks = heading.partition(" ")[0]
    return re.split(rf"\n#{{1,{len(marks)}}} ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables' rows, without the heads."""
    found: list[list[str]] = []
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        _head, _rule, *body = table.splitlines()
        found += [[cell.strip() for cell in line.split("|")[1:-1]] for line in body]
    return found


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def names(text: str) -> list[str]:
    """What the first columns of the tables name as code."""
    return [name for row in rows(text) for name in codes(row[0])]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def without_blocks(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def code_lines(page: Path) -> Iterator[str]:
    """Lines of fenced blocks, and inline code."""
    for block in blocks(page.read_text(encoding="utf-8"), r"\w*"):
        yield from (line.strip() for line in block.splitlines())
    yield from codes(without_blocks(page))


def anchors(page: Path) -> set[str]:
    """As the usual renderers make them of headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
