"""Everything on one machine: a Postgres and a Valkey out of wheels, and our own programs, kept alive as children.

`llmyard up` is a thin command over `Stack`. Nothing here knows what the programs do; it starts, watches and ends them.
"""
