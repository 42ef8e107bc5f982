"""Answers kept for the next who asks the same: in memory, in Redis, or in a file, behind one protocol."""
