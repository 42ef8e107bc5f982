"""One text with `{{variables}}` in it. Jinja2's notation, of which a prompt needs little, and may use no more.

Three walls stand between a template and the program: only the kinds of node listed here are taken, so nothing is ever
called, assigned or included; dots and brackets reach items of mappings and lists, never attributes of Python objects;
and underneath is Jinja2's own sandbox.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_CHARACTERS = 1_000_000
"""Of one rendered text; loops over loops could fill the memory."""

PromptValue: TypeAlias = "str | int | float | bool | Sequence[PromptValue] | Mapping[str, PromptValue] | None"

_JINJA_FILTERS = "capitalize default first join last length lower sort title trim unique upper"
_NODES: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List, nodes.Tuple),
    *(nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Keyword, nodes.Test, nodes.Concat),
    *(nodes.If, nodes.CondExpr, nodes.For, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
)


class PromptTextError(Exception):
    """A text that is no template, or that cannot be rendered; `str()` says why."""


class _Items(ImmutableSandboxedEnvironment):
    """Where `a.b` and `a['b']` are the item `b` of `a`, and nothing else."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, LoopContext):
            return super().getattr(obj, argument)
        try:
            return obj[argument]
        except (LookupError, TypeError):
            return self.undefined(obj=obj, name=argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)


def _create_environment() -> _Items:
    environment = _Items(
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Without these, `range` and its like are names as any other: a variable, or a mistake.
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _JINJA_FILTERS.split()}
    environment.filters["tojson"] = _dump_json
    return environment


def _dump_json(value: object, indent: int | None = None) -> str:
    """As models read it; Jinja2's own escapes letters for the sake of HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


_ENVIRONMENT = _create_environment()
FILTERS = frozenset(_ENVIRONMENT.filters)
"""All that a prompt may use."""


class PromptText:
    """Compiled once, rendered often."""

    def __init__(self, source: str) -> None:
        """
        Raises:
            PromptTextError: it is no template, or does what a prompt may not.
        """
        try:
            tree = _ENVIRONMENT.parse(source)
            _check(tree)
            self._template: Template = _ENVIRONMENT.from_string(source)
        except TemplateSyntaxError as error:
            raise PromptTextError(f"line {error.lineno}: {error.message}") from error
        self.variables = frozenset(meta.find_undeclared_variables(tree))
        """Names that must be given."""

    def render(self, variables: Mapping[str, PromptValue]) -> str:
        """
        Raises:
            PromptTextError: a part of a variable is missing, or the text becomes too long.
        """
        try:
            return "".join(_bound(self._template.generate(variables))).strip()
        except (TemplateError, TypeError, ValueError) as error:
            raise PromptTextError(str(error)) from error


def _check(tree: nodes.Template) -> None:
    for node in _walk(tree):
        if not isinstance(node, _NODES) or (isinstance(node, nodes.For) and node.recursive):
            raise PromptTextError(f"line {node.lineno}: a prompt may not use '{type(node).__name__.lower()}'")
        if isinstance(node, nodes.Name) and node.name == "self":
            raise PromptTextError(f"line {node.lineno}: a prompt may not use the name 'self'")


def _walk(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _walk(child)


def _bound(pieces: Iterator[str]) -> Iterator[str]:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > LONGEST_CHARACTERS:
            raise PromptTextError(f"the text becomes longer than {LONGEST_CHARACTERS:,} characters")
        yield piece
