"""What the model is told; pure.

The order of the system prompt is fixed: the agent's own prompt, who it is, how it speaks, and last, so that nothing
above can talk it away, that it never denies being an AI.
"""

from collections.abc import Sequence
from typing import Final

from llm_pool.types import ChatMessage
from orchestrator.agents.catalog import AgentProfile
from orchestrator.messages import Turn

DEFAULT_PERSONA: Final = "You are professional and warm. You answer clearly and to the point."

TRANSPARENCY_CLAUSE: Final = (
    "You are an AI. If someone asks you directly whether you are an AI, a bot or a human, always say honestly that "
    "you are an AI."
)


def build_system_prompt(agent: AgentProfile) -> str:
    """The agent's own prompt, name and role, persona, and the AI-transparency clause, a paragraph each."""
    identity = f"Your name is {agent.name}. Your role: {agent.role}."
    parts = (agent.system_prompt, identity, agent.persona or DEFAULT_PERSONA, TRANSPARENCY_CLAUSE)
    return "\n\n".join(part.strip() for part in parts if part and part.strip())


def build_messages(
    system_prompt: str, user_message: str, history: Sequence[Turn] | None = None
) -> tuple[ChatMessage, ...]:
    """System, what was said before, and the user's message last: OpenAI's order."""
    earlier = tuple(ChatMessage(role=turn.role, content=turn.content) for turn in history or ())
    return (
        ChatMessage(role="system", content=system_prompt),
        *earlier,
        ChatMessage(role="user", content=user_message),
    )
