"""What the mock provider says: texts, JSON of a wanted shape, tool calls and vectors, all made without a model.

Pure, and the same for the same request, so that a test or a demo can foretell it.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from llm_pool.types import (
    CompletionRequest,
    EmbeddingRequest,
    JsonFormat,
    ProviderAnswer,
    ProviderChunk,
    ToolCall,
    ToolCallDelta,
)

MOCK_PREFIX = "[mock answer] "
"""Begins every text, so that none is ever taken for a model's."""
BROKEN_JSON = '{"mock": true, "answer": "cut o'
DEEPEST = 6
"""Schemas that hold themselves would be filled for ever."""

_PIECES = re.compile(r"\s*\S+\s*|\s+")
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "email": "mock@example.org",
    "time": "00:00:00Z",
    "uri": "https://example.org/mock",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

Schema = Mapping[str, object]


class ScriptedToolCall(BaseModel):
    """A call that the mock is told to make."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: Mapping[str, object] = {}


def count_words(request: CompletionRequest | EmbeddingRequest) -> int:
    """There is no tokenizer to ask."""
    return sum(len(text.split()) for _, text in request.list_texts())


def build_json(wanted: JsonFormat, said: str) -> str:
    document = {"mock": True, "answer": said} if wanted.schema is None else build_example(wanted.schema)
    return json.dumps(document, ensure_ascii=False)


def choose_tool_calls(request: CompletionRequest, script: Sequence[ScriptedToolCall]) -> tuple[ToolCall, ...]:
    """None once the conversation ends with a tool's answer, or it would go on calling for ever."""
    if request.tool_choice == "none" or request.messages[-1].role == "tool":
        return ()
    offered = {tool.name: tool for tool in request.tools if request.tool_choice in ("auto", "required", tool.name)}
    calls = [(call.name, call.arguments) for call in script if call.name in offered]
    if not calls and request.tool_choice != "auto":
        calls = [(name, _as_object(build_example(tool.parameters))) for name, tool in list(offered.items())[:1]]
    return tuple(ToolCall(f"mock_call_{n}", name, json.dumps(dict(given))) for n, (name, given) in enumerate(calls))


def split_answer(answer: ProviderAnswer) -> Iterator[ProviderChunk]:
    """Word by word; a tool call as its name first, then its arguments."""
    for word in _PIECES.findall(answer.content):
        yield ProviderChunk(word)
    for index, call in enumerate(answer.tool_calls):
        yield ProviderChunk(tool_calls=(ToolCallDelta(index, call.id, call.name),))
        for piece in _PIECES.findall(call.arguments):
            yield ProviderChunk(tool_calls=(ToolCallDelta(index, arguments=piece),))


def build_vector(text: str, dimensions: int) -> tuple[float, ...]:
    """Of length 1. Each word gives it a direction of its own, so that texts which share words are near each other."""
    words = [_build_direction(word, dimensions) for word in text.lower().split() or [""]]
    total = [sum(values) for values in zip(*words, strict=True)]
    length = math.hypot(*total)
    return tuple(value / length for value in total)


def _build_direction(word: str, dimensions: int) -> list[float]:
    # Two bytes a value, from as long a digest as is wanted.
    digest = hashlib.shake_128(word.encode(errors="replace")).digest(2 * dimensions)
    pairs = (digest[at : at + 2] for at in range(0, len(digest), 2))
    return [int.from_bytes(pair, "big") / 32767.5 - 1.0 for pair in pairs]


def build_example(schema: Schema) -> object:
    """Something that fits the schema, as far as its common words go; `pattern` is not one of them."""
    return _build_value(schema, schema, 0)


def _build_value(schema: Schema, root: Schema, depth: int) -> object:
    if "const" in schema:
        return schema["const"]
    for choices in (schema.get("enum"), schema.get("examples")):
        if isinstance(choices, Sequence) and choices:
            return choices[0]
    target = _find_target(schema, root)
    if target is not None and depth < DEEPEST:
        return _build_value(target, root, depth + 1)
    return _build_typed(_choose_type(schema), schema, root, depth)


def _find_target(schema: Schema, root: Schema) -> Schema | None:
    """What it refers to, or the first of the shapes it may have; all of `allOf` put together."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        found: object = root
        for key in filter(None, reference.removeprefix("#").split("/")):
            found = _as_object(found).get(key, {})
        return _as_object(found)
    for word in ("anyOf", "oneOf"):
        shapes = schema.get(word)
        if isinstance(shapes, Sequence) and shapes:
            return _as_object(shapes[0])
    parts = schema.get("allOf")
    if not isinstance(parts, Sequence):
        return None
    return {key: value for part in parts for key, value in (_find_target(part, root) or _as_object(part)).items()}


def _choose_type(schema: Schema) -> str:
    named = schema.get("type")
    if isinstance(named, Sequence) and not isinstance(named, str):
        named = named[0] if named else None
    return str(named or ("object" if "properties" in schema else "string"))


def _build_typed(kind: str, schema: Schema, root: Schema, depth: int) -> object:
    match kind:
        case "object":
            return _build_object(schema, root, depth)
        case "array":
            least = schema.get("minItems", 1 if depth < DEEPEST else 0)
            item = _as_object(schema.get("items", {}))
            return [_build_value(item, root, depth + 1)] * int(str(least))
        case "integer" | "number":
            return _build_number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _build_text(schema)


def _build_object(schema: Schema, root: Schema, depth: int) -> dict[str, object]:
    properties = _as_object(schema.get("properties", {}))
    required = schema.get("required")
    names = required if isinstance(required, Sequence) else list(properties)
    return {str(name): _build_value(_as_object(properties.get(name, {})), root, depth + 1) for name in names}


def _build_number(schema: Schema) -> float | int:
    least, above, most = (schema.get(word) for word in ("minimum", "exclusiveMinimum", "maximum"))
    if isinstance(above, int | float):
        return above + 1
    if isinstance(least, int | float):
        return least
    return min(0, most) if isinstance(most, int | float) else 0


def _build_text(schema: Schema) -> str:
    text = _FORMATS.get(str(schema.get("format")), MOCK_PREFIX.strip())
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int):
        text = text.ljust(least, ".")
    return text[:most] if isinstance(most, int) else text


def _as_object(value: object) -> Schema:
    return value if isinstance(value, Mapping) else {}
