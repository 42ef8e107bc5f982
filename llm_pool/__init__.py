"""Decides where and how a model is called; knows nothing of jobs, Celery or tenants' tables.

For scripts: `await llm_pool.chat("hello")`. Nothing is loaded before one of these names is used.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_pool.asking.tool_rounds import ToolFunction, ToolRefusedError
    from llm_pool.assembly import open_pool
    from llm_pool.call import RunConfig
    from llm_pool.client.client import Client
    from llm_pool.client.config import LLMConfig, load_config
    from llm_pool.client.short_forms import (
        chat,
        embed,
        generate,
        get_client,
        get_status,
        process_queue,
        reset_client,
        stream,
    )
    from llm_pool.money.budget_tracker import BudgetTracker
    from llm_pool.pool import Pool
    from llm_pool.remote.remote import RemotePool
    from llm_pool.types import ChatMessage, CompletionRequest, EmbeddingRequest, JsonFormat, Tool, ToolCall

_PLACES = {
    "BudgetTracker": "money.budget_tracker",
    "ChatMessage": "types",
    "Client": "client.client",
    "CompletionRequest": "types",
    "EmbeddingRequest": "types",
    "JsonFormat": "types",
    "LLMConfig": "client.config",
    "Pool": "pool",
    "RemotePool": "remote.remote",
    "RunConfig": "call",
    "Tool": "types",
    "ToolCall": "types",
    "ToolFunction": "asking.tool_rounds",
    "ToolRefusedError": "asking.tool_rounds",
    "chat": "client.short_forms",
    "embed": "client.short_forms",
    "generate": "client.short_forms",
    "get_client": "client.short_forms",
    "get_status": "client.short_forms",
    "load_config": "client.config",
    "open_pool": "assembly",
    "process_queue": "client.short_forms",
    "reset_client": "client.short_forms",
    "stream": "client.short_forms",
}

__all__ = [
    "BudgetTracker",
    "ChatMessage",
    "Client",
    "CompletionRequest",
    "EmbeddingRequest",
    "JsonFormat",
    "LLMConfig",
    "Pool",
    "RemotePool",
    "RunConfig",
    "Tool",
    "ToolCall",
    "ToolFunction",
    "ToolRefusedError",
    "chat",
    "embed",
    "generate",
    "get_client",
    "get_status",
    "load_config",
    "open_pool",
    "process_queue",
    "reset_client",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'llm_pool' has no attribute {name!r}")
    return resolve_name(f"llm_pool.{_PLACES[name]}:{name}")


def __dir__() -> list[str]:
    return __all__
