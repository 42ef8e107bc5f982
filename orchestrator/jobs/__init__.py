"""The life of a job: its states, and the queries that take it in, claim it, keep it alive and end it."""
