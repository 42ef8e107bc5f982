"""A conversation as one text, for those who take no list of messages. Pure."""

from collections.abc import Sequence

from llm_pool.types import ChatMessage

_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


def join_system(messages: Sequence[ChatMessage]) -> str:
    """What the model is told about itself; empty where nothing is."""
    return "\n\n".join(message.content for message in messages if message.role == "system")


def join_conversation(messages: Sequence[ChatMessage]) -> str:
    """Everything else. A single message is given as it stands, several with who spoke."""
    spoken = [message for message in messages if message.role != "system"]
    if len(spoken) == 1:
        return spoken[0].content
    return "\n\n".join(f"{_SPEAKERS[message.role]}: {message.content}" for message in spoken)


def build_prompt(messages: Sequence[ChatMessage]) -> str:
    """Both, one after the other."""
    return "\n\n".join(part for part in (join_system(messages), join_conversation(messages)) if part)
