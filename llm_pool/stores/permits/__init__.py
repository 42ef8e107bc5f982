"""Leave to spend n tokens at a deployment now, counted for one process or for the whole fleet."""
