"""What the model is asked where the message carries its own prompt; pure. No agent is consulted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm_pool.dialects.bodies import Caller
from llm_pool.types import ChatMessage, CompletionRequest, Purse
from orchestrator import messages
from orchestrator.messages import Message, is_plain, read_prompt


def build_prompt_request(message: Message) -> CompletionRequest:
    """The prompt as it came, under the message's model group, or else its own.

    Raises:
        InputError: the message has no prompt, or one that cannot be honoured.
    """
    prompt = message.prompt or {}
    model = message.model or prompt.get("model")
    purse = None if message.purse is None else build_purse(message.purse)
    if model and is_plain(prompt):
        return _build_plain(model, prompt, message.tenant_id, purse)
    request = read_prompt(prompt, message.model).to_request(Caller(message.tenant_id))
    return request if purse is None else replace(request, purse=purse)


def _build_plain(model: str, prompt: Mapping[str, Any], tenant_id: str, purse: Purse | None) -> CompletionRequest:
    """The same of a prompt that leaves nothing to be checked, at half the cost: texts that were stored can be."""
    return CompletionRequest(
        model=model,
        messages=tuple([ChatMessage(turn["role"], turn["content"]) for turn in prompt["messages"]]),
        tenant_id=tenant_id,
        purse=purse,
        max_tokens=prompt.get("max_tokens"),
    )


def build_purse(purse: messages.Purse) -> Purse:
    """As the pool counts it."""
    return Purse(purse.name, purse.limit_usd)
