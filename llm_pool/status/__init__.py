"""How a pool stands: metrics, quotas, who answered last, and where others can read it."""
