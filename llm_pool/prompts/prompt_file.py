"""Reads prompts from a YAML file, so that every mistake in it is one sentence that names the file and the place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_pool.prompts.template import Example, PromptTemplate, Variable
from llm_pool.prompts.text import PromptText, PromptTextError, PromptValue
from llm_pool.yaml_file import read_yaml
from shared.errors import ConfigurationError, InputError

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
_Name = Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*$")]
_Identifier = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]


class _VariableEntry(BaseModel):
    model_config = _STRICT

    name: _Identifier
    description: str = ""
    default: Any = None

    def build(self) -> Variable:
        is_required = "default" not in self.model_fields_set
        return Variable(self.name, self.description, is_required, self.default)


class _ExampleEntry(BaseModel):
    """Its user says `user` as it stands, or what the template says for these `variables`."""

    model_config = _STRICT

    user: str | None = None
    variables: dict[str, Any] | None = None
    assistant: str


class _TemplateEntry(BaseModel):
    model_config = _STRICT

    name: _Name
    version: Any
    description: str = ""
    system: str | None = None
    user: str
    variables: list[_Identifier | _VariableEntry] | None = None
    examples: list[_ExampleEntry] = []
    metadata: dict[str, Any] = {}


class _FileEntry(BaseModel):
    model_config = _STRICT

    templates: list[_TemplateEntry]


def load_prompts(path: Path) -> tuple[PromptTemplate, ...]:
    """
    Raises:
        ConfigurationError: naming the file, the place, and what to do.
    """
    try:
        entries = _check(read_yaml(path)).templates
        return tuple(_build(entry, f"templates.{index}") for index, entry in enumerate(entries))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _check(document: object) -> _FileEntry:
    try:
        return _FileEntry.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        known = ", ".join(_TemplateEntry.model_fields)
        raise ConfigurationError(
            f"`{place}` cannot be used ({first['msg']}): under `templates`, each has the keys {known}."
        ) from error


def _build(entry: _TemplateEntry, at: str) -> PromptTemplate:
    system = None if entry.system is None else _compile(entry.system, f"{at}.system")
    user = _compile(entry.user, f"{at}.user")
    used = user.variables | (frozenset() if system is None else system.variables)
    template = PromptTemplate(
        name=entry.name,
        version=_read_version(entry.version, f"{at}.version"),
        description=entry.description,
        system=system,
        user=user,
        variables=_build_variables(entry.variables, used, f"{at}.variables"),
        metadata=entry.metadata,
    )
    # By the template itself, as it says what their variables become.
    examples = [_build_example(each, template, f"{at}.examples.{i}") for i, each in enumerate(entry.examples)]
    return template.with_examples(examples)


def _compile(source: str, at: str) -> PromptText:
    try:
        return PromptText(source)
    except PromptTextError as error:
        raise ConfigurationError(f"`{at}` is no prompt ({error}): mend it.") from error


def _read_version(raw: object, at: str) -> Version:
    """YAML takes 1.10 for a number, the same as 1.1."""
    if isinstance(raw, float):
        raise ConfigurationError(f"`{at}` is the number {raw}, and 1.10 would be 1.1: write it in quotes.")
    try:
        return Version(str(raw))
    except InvalidVersion as error:
        raise ConfigurationError(f"`{at}` is '{raw}', which is no version: write one such as \"1.2\".") from error


def _build_variables(
    entries: Sequence[str | _VariableEntry] | None, used: frozenset[str], at: str
) -> tuple[Variable, ...]:
    """Where a file lists none, those that the texts use."""
    if entries is None:
        return tuple(Variable(name) for name in sorted(used))
    variables = tuple(Variable(entry) if isinstance(entry, str) else entry.build() for entry in entries)
    names = [variable.name for variable in variables]
    for problem, found in (
        ("lacks {}, which the prompt uses: add it", used - set(names)),
        ("names {}, which the prompt does not use: remove it", set(names) - used),
        ("names {} twice: remove one", {name for name in names if names.count(name) > 1}),
    ):
        if found:
            raise ConfigurationError(f"`{at}` {problem.format(', '.join(sorted(found)))}.")
    return variables


def _build_example(entry: _ExampleEntry, template: PromptTemplate, at: str) -> Example:
    if (entry.user is None) == (entry.variables is None):
        raise ConfigurationError(f"`{at}` needs either `user` or `variables`: give one of them.")
    if entry.variables is None:
        return Example((entry.user or "").strip(), entry.assistant.strip())
    values: dict[str, PromptValue] = entry.variables
    try:
        return Example(template.render(values)[-1].content, entry.assistant.strip())
    except InputError as error:
        raise ConfigurationError(f"`{at}.{error.field}`: {error.problem}; {error.remedy}.") from error
