"""What the pool remembers between calls: one package for each kind of memory, with a protocol and who fills it."""
