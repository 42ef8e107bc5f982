"""One version of one prompt: what it says to a model, around what the caller puts in."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

from packaging.version import Version

from llm_pool.prompts.text import PromptText, PromptTextError, PromptValue
from llm_pool.types import ChatMessage, JsonFormat
from shared.errors import InputError

_FORMAT_NAME = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Variable:
    """What a caller puts in."""

    name: str
    description: str = ""
    is_required: bool = True
    default: PromptValue = None
    """Put in for a variable that is not required, where the caller gives none."""


@dataclass(frozen=True, slots=True)
class Example:
    """One turn as it should go."""

    user: str
    assistant: str


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Made by `prompt_file`; rendered as often as wanted."""

    name: str
    version: Version
    description: str
    system: PromptText | None
    user: PromptText
    variables: tuple[Variable, ...] = ()
    examples: tuple[Example, ...] = ()
    """Few-shot: shown to the model as earlier turns of the conversation."""
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)
    """Whatever its author noted; `json_schema` has a meaning, see `json_format`."""

    @property
    def json_format(self) -> JsonFormat | None:
        """What answers are to look like, where the metadata has a `json_schema`."""
        schema = self.metadata.get("json_schema")
        if not isinstance(schema, Mapping):
            return None
        return JsonFormat(schema, self.name) if _FORMAT_NAME.fullmatch(self.name) else JsonFormat(schema)

    def with_examples(self, examples: Iterable[Example]) -> "PromptTemplate":
        return replace(self, examples=tuple(examples))

    def render(self, variables: Mapping[str, PromptValue]) -> tuple[ChatMessage, ...]:
        """
        Raises:
            InputError: naming the variables that are missing, or not among this prompt's, or lack a part.
        """
        self._check(variables)
        defaults = {variable.name: variable.default for variable in self.variables if not variable.is_required}
        values = {**defaults, **variables}
        system = () if self.system is None else (ChatMessage("system", self._render(self.system, values)),)
        examples = (
            message
            for example in self.examples
            for message in (ChatMessage("user", example.user), ChatMessage("assistant", example.assistant))
        )
        return *system, *examples, ChatMessage("user", self._render(self.user, values))

    def _check(self, variables: Mapping[str, PromptValue]) -> None:
        known = [variable.name for variable in self.variables]
        missing = [each.name for each in self.variables if each.is_required and each.name not in variables]
        if missing:
            self._refuse(missing, "needs it", f"give a value for {', '.join(missing)}")
        unknown = [name for name in variables if name not in known]
        if unknown:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            self._refuse(unknown, "has no such variable", f"leave out {', '.join(unknown)}: {takes}")

    def _refuse(self, names: list[str], problem: str, remedy: str) -> NoReturn:
        raise InputError(f"variables.{names[0]}", f"the prompt {self.name} {self.version} {problem}", remedy)

    def _render(self, text: PromptText, values: Mapping[str, PromptValue]) -> str:
        try:
            return text.render(values)
        except PromptTextError as error:
            problem = f"the prompt {self.name} {self.version} cannot be rendered ({error})"
            raise InputError("variables", problem, "give each variable the parts that the prompt uses") from error
