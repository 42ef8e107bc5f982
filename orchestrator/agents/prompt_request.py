"""What the model is asked where the message carries its own prompt; pure. No agent is consulted."""

from dataclasses import replace

from llm_pool.dialects.bodies import Caller
from llm_pool.types import CompletionRequest, Purse
from orchestrator import messages
from orchestrator.messages import Message, read_prompt


def build_prompt_request(message: Message) -> CompletionRequest:
    """The prompt as it came, under the message's model group, or else its own.

    Raises:
        InputError: the message has no prompt, or one that cannot be honoured.
    """
    request = read_prompt(message.prompt or {}, message.model).to_request(Caller(message.tenant_id))
    return request if message.purse is None else replace(request, purse=build_purse(message.purse))


def build_purse(purse: messages.Purse) -> Purse:
    """As the pool counts it."""
    return Purse(purse.name, purse.limit_usd)
