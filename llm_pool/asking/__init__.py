"""Questions on top of `complete`: a chat turn, JSON of a shape, tools; and what can be said without asking."""
