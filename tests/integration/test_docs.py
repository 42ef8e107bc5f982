"""The pages, held against the program they describe: what they name exists, and what exists is named."""

import ast
import asyncio
import json
import re
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import get_args

import asyncpg
import pytest
from click import Command
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from llm_pool.catalog import Deployment, FallBackOn, Limits, ModelGroup, Price
from llm_pool.catalogs.catalog_file import load_catalog
from llm_pool.pool import Pool
from llm_pool.providers.failures import choose_class
from llm_pool.remote.wire import STATUS_BY_ERROR
from llm_pool.routing.strategies import STRATEGIES
from llm_pool.types import Capability
from orchestrator.cli.main import app
from orchestrator.jobs.lifecycle import NEXT_STATES, JobState
from orchestrator.messages import Message, parse_message
from shared import errors
from shared.errors import LLMError, LLMYardError
from shared.settings import Settings
from tests.pages import (
    DOCS,
    PAGES,
    ROOT,
    anchors,
    blocks,
    code_lines,
    codes,
    names,
    read,
    rows,
    section,
    without_blocks,
)

PACKAGES = ("orchestrator", "llm_pool", "shared")
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
on_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def shown_commands() -> set[tuple[str, str]]:
    """What follows `llmyard` wherever it is shown, with the page that shows it."""
    found = ((page, re.match(r"(?:\.venv/bin/)?llmyard ([^#]*)", line)) for page in PAGES for line in code_lines(page))
    return {(page.relative_to(ROOT).as_posix(), use[1].strip()) for page, use in found if use}


def classes_below(base: type) -> set[type]:
    return {base}.union(*(classes_below(below) for below in base.__subclasses__()))


def logged_events() -> dict[str, set[str]]:
    """The levels at which each event is logged anywhere in the code."""
    found: dict[str, set[str]] = {}
    sources = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    for node in (node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name() | ast.Attribute(attr="_log"), attr=method),
                args=[ast.Constant(value=str(event))],
            ):
                if method in LEVELS:
                    found.setdefault(event, set()).add(LEVELS[method])
    return found


def test_every_variable_is_explained_with_its_default() -> None:
    told = {row[0].strip("`"): row[1] for row in rows(section(read("configuration.md"), "## Environment"))}
    assert told.keys() == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, bool | int | float | str):
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()
            assert told[name.upper()] == f"`{default}`"


def test_every_key_of_the_catalogue_is_explained() -> None:
    of_a_deployment, of_a_group = section(read("configuration.md"), "## llmyard.yaml").split("\nOf a group:\n")
    assert names(of_a_deployment) == [field.name for field in fields(Deployment)]
    assert names(of_a_group) == [field.name for field in fields(ModelGroup) if field.name != "name"]
    told = {row[0].strip("`"): codes(row[1]) + codes(row[2]) for row in rows(of_a_deployment) + rows(of_a_group)}
    assert set(told["supports"]) == set(get_args(Capability))
    assert told["limits"] == [field.name for field in fields(Limits)]
    assert told["price"] == ["free", *(field.name for field in fields(Price))]
    assert set(told["strategy"]) == STRATEGIES.keys()
    assert told["fall_back_on"] == list(get_args(FallBackOn))


@pytest.mark.parametrize("example", blocks(read("configuration.md"), "yaml"))
def test_every_example_of_a_catalogue_makes_a_pool(example: str, tmp_path: Path) -> None:
    path = tmp_path / "llmyard.yaml"
    path.write_text(example)
    catalog = load_catalog(path, {"ANTHROPIC_API_KEY": "a key"}.get)
    Pool(catalog)
    assert set(catalog.group_names) == {"fast", "quality"}
    assert not catalog.left_out


def test_every_error_does_what_the_table_says() -> None:
    classes = {kind for kind in classes_below(LLMYardError) if kind.__module__ == errors.__name__}
    of_models = rows(section(read("errors.md"), "## A call to a model failed"))
    others = names(section(read("errors.md"), "## Everything else"))
    assert sorted(others) == sorted(kind.__name__ for kind in classes if not issubclass(kind, LLMError))
    assert {row[0].strip("`"): row[2:] for row in of_models} == {
        kind.__name__: describe_error(kind) for kind in classes if issubclass(kind, LLMError)
    }


def describe_error(kind: type[LLMError]) -> list[str]:
    """Retry, falls back, parks."""
    retry, falls_back, parks = ("yes" if flag else "no" for flag in (kind.is_retryable, kind.falls_back, kind.parks))
    if kind.falls_back_as is not None:
        falls_back = f"no, or with `fall_back_on: [{kind.falls_back_as}]`"
    return [retry, falls_back, parks]


def test_every_status_means_what_is_told() -> None:
    text = section(read("errors.md"), "## Which status means what")
    of_providers, of_the_service = text.split("\nFrom the pool service")
    for statuses, kind in rows(of_providers.split("\nWhat says more")[0]):
        for status in re.findall(r"\b\d{3}\b", statuses):
            assert kind == f"`{choose_class(int(status)).__name__}`", status
    told = {int(status): codes(when) for status, _body, when in rows(of_the_service)}
    assert all(kind.__name__ in told[status] for kind, status in STATUS_BY_ERROR.items())


def test_every_way_between_states_is_drawn_and_explained() -> None:
    ways = {(state.value, later.value) for state, following in NEXT_STATES.items() for later in following}
    (drawing,) = blocks(read("job-states.md"), "mermaid")
    arrows = re.findall(r"^ +(\w+) --> (\w+|\[\*\])", drawing, re.MULTILINE)
    assert set(arrows) == ways | {(state.value, "[*]") for state in JobState if state.is_final}
    moved = rows(section(read("job-states.md"), "## What moves a job"))
    assert {(start, end) for row in moved for start in codes(row[0]) for end in codes(row[1])} == ways


def test_every_state_is_explained_to_pollers() -> None:
    assert sorted(names(section(read("job-states.md"), "## What pollers see"))) == sorted(JobState)


def test_every_field_of_a_message_is_explained() -> None:
    told = {row[0].strip("`"): row[2] == "yes" for row in rows(section(read("messages.md"), "## A message"))}
    assert told == {name: field.is_required() for name, field in Message.model_fields.items()}


def test_the_message_shown_is_one() -> None:
    (shown,) = blocks(section(read("messages.md"), "## A message"), "json")
    assert parse_message(json.loads(shown)).context.history


def test_a_result_of_each_kind_is_shown() -> None:
    shown = blocks(section(read("messages.md"), "## What comes back"), "json")
    assert [json.loads(result)["state"] for result in shown] == ["queued", "succeeded", "parked", "failed"]


@pytest.mark.parametrize(("page", "command"), sorted(shown_commands()))
def test_every_command_shown_exists(page: str, command: str) -> None:
    words = re.sub(r'"[^"]*"', "TEXT", command).split()
    used: list[str] = []
    found: Command = get_command(app)
    for word in takewhile(lambda word: re.fullmatch(r"[a-z]+", word), words):
        if not isinstance(found, TyperGroup):
            break
        assert word in found.commands, page
        found = found.commands[word]
        used.append(word)
    assert CliRunner().invoke(app, [*used, "--help"]).exit_code == 0
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def test_every_make_target_shown_exists() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = (line for page in PAGES for line in code_lines(page))
    shown = {target[1] for line in lines if (target := re.match(r"make ([a-z][a-z-]*)", line))}
    assert "test" in shown
    assert shown <= set(targets)


@on_each_page
def test_every_link_inside_resolves(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        path, _, anchor = target.partition("#")
        aim = (page.parent / path) if path else page
        assert "://" in target or aim.exists(), target
        assert "://" in target or not anchor or anchor in anchors(aim), target


@on_each_page
def test_every_file_named_exists(page: Path) -> None:
    ours = re.compile(r"(orchestrator|llm_pool|shared|alembic|tests|examples|docs)/[\w/.-]*")
    named = {code for code in codes(without_blocks(page)) if ours.fullmatch(code)}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@on_each_page
def test_every_error_named_exists(page: Path) -> None:
    named = {code for code in codes(without_blocks(page)) if re.fullmatch(r"LLM\w+Error", code)}
    assert [name for name in sorted(named) if not hasattr(errors, name)] == []


def test_every_event_is_in_the_table_of_logs() -> None:
    told = {row[0].strip("`"): {row[1]} for row in rows(section(read("operating.md"), "## Logs"))}
    assert told == logged_events()


def test_every_query_shown_runs(database_url: str) -> None:
    """In one transaction that is not kept, as some of them make logins."""

    async def run_all() -> None:
        connection = await asyncpg.connect(database_url)
        transaction = connection.transaction()
        await transaction.start()
        for query in blocks(read("operating.md"), "sql"):
            await connection.execute(make_repeatable(query))
        await transaction.rollback()
        await connection.close()

    asyncio.run(run_all())


def make_repeatable(query: str) -> str:
    """The working roles are there already, and a transaction is open."""
    if "create role" in query:
        return "reset role; " + re.sub(r"create role llmyard_(app|system) ", r"create role shown_\1 ", query)
    return re.sub(r"^(begin|commit);$", "", query, flags=re.MULTILINE)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_page_opens_with_the_question_it_answers(page: Path) -> None:
    assert page.read_text(encoding="utf-8").splitlines()[2].startswith("This page answers: ")
