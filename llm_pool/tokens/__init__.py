"""How many tokens a text is, as near as can be said without asking anyone."""
