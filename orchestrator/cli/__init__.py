"""The `llmyard` command: one module per group of commands, each a thin layer over what does the work."""
