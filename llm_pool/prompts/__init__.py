"""Prompts as files: versioned templates, what they may contain, where they are found. Nothing calls a model here."""
