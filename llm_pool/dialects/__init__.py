"""The HTTP dialects in which a pool can be asked: llmyard's own, OpenAI's, Anthropic's."""
