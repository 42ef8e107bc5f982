"""The life of a job, and every query on it."""
