"""By what a kept answer is found again: a hash over everything that shapes it. Pure.

In the key: what the model reads (messages, tools, schema), how it is to answer (temperature, max_tokens, top_p, stop,
tool_choice), who could answer (the model group as it is defined), and the tenant, so that no tenant is ever told what
another one asked. Not in the key: timeout_seconds, metadata, key_id and user. They say who waits, who pays and who is
accountable; an equal question of the same tenant gets the same answer whoever that is.

The order of things is kept as it was given, also within JSON schemas: models fill in fields in the schema's order.
"""

import json
from collections.abc import Mapping
from hashlib import sha256

from llm_pool.catalog import Catalog, Deployment
from llm_pool.types import ChatMessage, CompletionRequest, Tool

VERSION = 1
"""Count it up when an old key would find an answer to another question."""


def build_cache_key(request: CompletionRequest, fingerprint: str) -> str:
    """`fingerprint` is that of the group asked for, see `build_fingerprints`."""
    wanted = request.json_format
    shape = (
        VERSION,
        request.tenant_id,
        fingerprint,
        [_list_message(message) for message in request.messages],
        _as_float(request.temperature),
        request.max_tokens,
        _as_float(request.top_p),
        request.stop,
        [_list_tool(tool) for tool in request.tools],
        request.tool_choice,
        None if wanted is None else (wanted.name, wanted.schema),
    )
    return _hash(shape)


def build_fingerprints(catalog: Catalog) -> Mapping[str, str]:
    """For each group a hash of who may answer for it, so that a changed catalogue does not speak with the old voice."""
    return {
        name: _hash((name, [_list_deployment(each) for group in catalog.walk(name) for each in group.deployments]))
        for name in catalog.group_names
    }


def _list_message(message: ChatMessage) -> tuple[object, ...]:
    calls = [(call.id, call.name, call.arguments, call.provider_data) for call in message.tool_calls]
    return message.role, message.content, message.name, calls, message.tool_call_id


def _list_tool(tool: Tool) -> tuple[object, ...]:
    return tool.name, tool.description, tool.parameters, tool.strict


def _list_deployment(deployment: Deployment) -> tuple[object, ...]:
    """Neither its name nor its key, prices and limits: none of them is heard in an answer."""
    return (
        deployment.provider,
        deployment.model,
        deployment.base_url,
        deployment.options,
        deployment.takes_temperature,
        deployment.supports,
        deployment.default_max_tokens,
    )


def _as_float(number: float | None) -> float | None:
    """0 and 0.0 are one temperature, and not one JSON."""
    return None if number is None else float(number)


def _hash(shape: object) -> str:
    return sha256(_ENCODER.encode(shape).encode()).hexdigest()


def _plain(value: object) -> object:
    """What JSON does not know by itself: a mapping that is no dict, and whatever a catalogue's options may hold."""
    return dict(value) if isinstance(value, Mapping) else repr(value)


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)
"""Made once: `json.dumps` would make one for each request."""
