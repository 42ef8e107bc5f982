"""What was spent of each day's budget, and what is held for calls in flight."""
